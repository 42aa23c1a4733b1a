"""Django's settings for these tests; ``conftest.site`` says where the database is."""

SECRET_KEY = "of tests"
ALLOWED_HOSTS = ["testserver", "127.0.0.1"]
TIME_ZONE = "UTC"  # also that of this process: Django sets TZ
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.django.hospital.urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "tests.django.hospital",
]
MIDDLEWARE = [
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
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASE_ROUTERS = ["wardkey.django.routers.WardRouter"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.postgresql"},
    "wards": {"ENGINE": "wardkey.django", "ATOMIC_REQUESTS": True, "OPTIONS": {"wards": {}}},
    "narrow": {"ENGINE": "wardkey.django", "OPTIONS": {"wards": {"max_size": 1, "timeout": 0.3}}},
    "owner": {"ENGINE": "wardkey.django.owner", "OPTIONS": {"options": "-c search_path=hospital"}},
}
