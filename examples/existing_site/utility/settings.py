"""A utility's customer site. Everything above the last section is as it was before anybody signed anything."""

from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "only-for-this-example-0123456789-abcdefghijklmnopqrstuvwxyz"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    # The site's own app of that name: the utility's consumers of energy.
    "consumers",
]

MIDDLEWARE = [
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
]

ROOT_URLCONF = "utility.urls"
WSGI_APPLICATION = "utility.wsgi.application"
ASGI_APPLICATION = "utility.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
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

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "static/"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "households"
CACHE_MIDDLEWARE_SECONDS = 60

REST_FRAMEWORK = {
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
    "DEFAULT_THROTTLE_RATES": {"consumer": "600/min"},
}

# --- partners sign their requests ---

from hmac_gateway import EMBED  # noqa: E402

INSTALLED_APPS += EMBED
MIDDLEWARE.insert(
    MIDDLEWARE.index("django.middleware.security.SecurityMiddleware") + 1,
    "hmac_gateway.middleware.HmacGatewayMiddleware",
)

# Made once (README.md, step 2) and kept: without it stored secrets cannot be read.
KEY_FILE = BASE_DIR / "encryption.key"
POLICY = {"signed_headers": ["@request-target", "date"], "allowed_algorithms": ["hmac-sha256"]}

HMAC_GATEWAY = {
    "ENCRYPTION_KEYS": KEY_FILE.read_text().split() if KEY_FILE.exists() else [],
    "PROTECT": [{"path": r"^/export/", "config": POLICY}],
    "REPLAY_STORE": "database",
}
