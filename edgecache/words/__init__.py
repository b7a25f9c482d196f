"""Pure values that every layer speaks: messages, fields, configuration, errors, counters."""
