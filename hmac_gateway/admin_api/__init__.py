"""Admin REST APIs over the same models: APISIX's dialect here, others beside it.

Reaches the models through `apps.get_model`, never by importing `consumers` or `proxy`. Mounted by `urls.py`.
"""
