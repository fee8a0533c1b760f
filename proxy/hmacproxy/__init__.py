"""The command `hmacproxy`: signs requests for an upstream, or verifies them for an upstream, for files or for nginx.

Flags, words and start lines are those of the program of that name; server and transport are the gateway lane's. No
database and no settings. `flags` → `options` → `command` → `app`, `files`.
"""
