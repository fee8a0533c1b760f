"""Settings of the standalone site: everything comes from the environment, see `.env.example`.

Nothing in the library imports this file; a host has settings of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import environ

from hmac_gateway import EMBED

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.FileAwareEnv()
if not os.environ.get("HMAC_GATEWAY_NO_DOTENV"):
    environ.Env.read_env(str(BASE_DIR / ".env"))

SECRET_KEY: str = env("SECRET_KEY", default="")
DEBUG: bool = env.bool("DEBUG", default=False)
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])

INSTALLED_APPS: list[str] = [
    "whitenoise.runserver_nostatic",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    # The page that shows the admin API, without a download.
    "drf_spectacular_sidecar",
    *EMBED,
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "hmac_gateway.urls"
ASGI_APPLICATION = "hmac_gateway.asgi.application"
WSGI_APPLICATION = "hmac_gateway.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def _database() -> dict[str, Any]:
    database: dict[str, Any] = env.db("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}")
    if database["ENGINE"] == "django.db.backends.sqlite3":
        # WAL lets readers go on while one writer writes; IMMEDIATE takes the write lock at the start of a
        # transaction, where the timeout applies, instead of failing in its middle.
        database["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
    elif database["ENGINE"] == "django.db.backends.mysql":
        # Ids and keys are case sensitive.
        database["OPTIONS"] = {"charset": "utf8mb4", "collation": "utf8mb4_bin"}
    return database


DATABASES = {"default": _database()}
CACHES = {"default": env.cache("CACHE_URL", default="locmemcache://hmac-gateway")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True

STATIC_URL = "static/"
STATIC_ROOT: str | None = env("STATIC_ROOT", default=None)
# Found where the apps keep them, so that a start needs no collectstatic.
WHITENOISE_USE_FINDERS = True

# Cookies ignore ports: a name of our own keeps the console's session from meeting another site's on this host.
SESSION_COOKIE_NAME = "hmac_gateway_sessionid"
CSRF_COOKIE_NAME = "hmac_gateway_csrftoken"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
# Set where the console listens with TLS.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.bool("HMAC_GATEWAY_SECURE_COOKIES", default=False)
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
X_FRAME_OPTIONS = "DENY"

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "hmac_gateway admin API",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "OAS_VERSION": "3.1.1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "docExpansion": "none", "validatorUrl": None},
    "POSTPROCESSING_HOOKS": ["hmac_gateway.admin_api.openapi.describe"],
}

HMAC_GATEWAY = {
    "DIALECT": env("HMAC_GATEWAY_DIALECT", default="apisix"),
    "TRUSTED_PROXIES": env.list("HMAC_GATEWAY_TRUSTED_PROXIES", default=[]),
    "ORIGINAL_HEADERS": env("HMAC_GATEWAY_ORIGINAL_HEADERS", default="nginx"),
    "REPLAY_STORE": env("HMAC_GATEWAY_REPLAY_STORE", default="memory"),
    "COUNTER_STORE": env("HMAC_GATEWAY_COUNTER_STORE", default="") or None,
    "ENCRYPTION_KEYS": env.list("HMAC_GATEWAY_ENCRYPTION_KEYS", default=[]),
    "ADMIN_KEY": env("HMAC_GATEWAY_ADMIN_KEY", default="") or None,
    "PLUGINS_AVAILABLE": env.list("HMAC_GATEWAY_PLUGINS_AVAILABLE", default=[]) or None,
    "ENV_PREFIX": env("HMAC_GATEWAY_ENV_PREFIX", default="GATEWAY_SECRET_"),
    "REFRESH_SECONDS": env.float("HMAC_GATEWAY_REFRESH_SECONDS", default=0.25),
    "ACCESS_LOG": env.bool("HMAC_GATEWAY_ACCESS_LOG", default=True),
    "WORKERS": env.int("WEB_CONCURRENCY", default=1),
}
