"""``edgecache demo``: a fleet of three, two origins and what happens, on this machine alone (DESIGN 11)."""
