"""Configuration as files: other gateways' formats ↔ our rows, with the admin API's own resources and validation.

Called by `hmac_import` and `hmac_export`. Reaches the models through `apps.get_model`.
"""
