"""The Python index: what its pages say, and what is made of them for clients."""
