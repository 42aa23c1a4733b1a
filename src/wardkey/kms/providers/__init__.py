"""A provider is one module here, named by the scheme of its URI, with one class."""
