"""wardkey in Django 5.2 and 6: one alias for all tenants, model tables that migrations protect.

``wardkey.django``             ENGINE of the alias of tenants: a transaction logs in with the request's token
``wardkey.django.owner``       ENGINE of the alias that migrates: a superuser's, who declares model tables
``wardkey.django.models``      ``WardModel``, ``SharedModel``, ``Sealed``, ``upsert``
``wardkey.django.operations``  of migrations, for what models do not say: row rules, auditing, other tables
``wardkey.django.middleware``  ``BearerMiddleware``: the token of a request
``wardkey.django.routers``     ``WardRouter``: ward models to the first alias, their migrations to the second
``wardkey.django.tokens``      ``use``: the token outside of requests
"""
