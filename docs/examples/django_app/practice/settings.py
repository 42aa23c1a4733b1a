"""Where the database is say the variables of libpq: PGHOST, PGPORT, PGDATABASE, PGPASSFILE."""

import os

SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "practice.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "practice",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "wardkey.django.middleware.BearerMiddleware",
]
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
DEFAULT_EXCEPTION_REPORTER_FILTER = "wardkey.django.reporting.WithoutValues"

DATABASE_ROUTERS = ["wardkey.django.routers.WardRouter"]
NAME = os.environ["PGDATABASE"]
DATABASES = {
    # Django's own tables: users, sessions, the admin's log
    "default": {"ENGINE": "django.db.backends.postgresql", "NAME": NAME, "USER": "practice"},
    # what tenants have, each through its own login role
    "wards": {"ENGINE": "wardkey.django", "NAME": NAME, "ATOMIC_REQUESTS": True},
}
if owner := os.environ.get("OWNER"):  # a superuser: where migrations run, not where requests are served
    DATABASES["owner"] = {
        "ENGINE": "wardkey.django.owner",
        "NAME": NAME,
        "USER": owner,
        "OPTIONS": {"options": "-c search_path=care"},
    }
