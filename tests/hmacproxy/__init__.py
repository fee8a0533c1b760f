"""The command hmacproxy: flags, options, and its four modes as processes of their own."""
