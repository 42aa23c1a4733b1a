"""The part of wardkey that runs inside PostgreSQL, behind the PL/Python functions of extension "wardkey".

Everything here but ``_host`` and ``entry`` runs without PostgreSQL. It imports the standard library and
``cryptography`` only, and little of both: every backend pays for it (records are NamedTuples because
``dataclasses`` alone costs 12 ms, ``socket`` and ``uuid`` 3 ms each).
"""

import gc
import os
import sys

__version__ = "0.3.0"


def _load_together() -> None:
    """Load the modules of a first login from the file that module ``together`` makes, if it is there."""
    import marshal
    from _frozen_importlib import ModuleSpec, module_from_spec  # importlib's, without reading importlib
    from _frozen_importlib_external import MAGIC_NUMBER, ExtensionFileLoader

    try:
        with open(f"{__path__[0]}/together", "rb", buffering=0) as file:  # noqa: PTH123
            magic, made = file.read(len(MAGIC_NUMBER)), file.read()
    except OSError:
        return
    if magic != MAGIC_NUMBER:
        return
    directory = __path__[0].removesuffix(__name__)
    libraries, modules = marshal.loads(made)  # noqa: S302
    for name, path in libraries:
        if name not in sys.modules:
            place = path if path.startswith("/") else directory + path
            loader = ExtensionFileLoader(name, place)
            try:
                module = module_from_spec(ModuleSpec(name, loader, origin=place))
                loader.exec_module(module)
            except ImportError:
                continue  # it was moved: looked for when it is imported
            sys.modules[name] = module
    for name, is_package, code in modules:
        if name in sys.modules:
            continue
        module = sys.modules[name] = type(sys)(name)
        module.__spec__ = spec = ModuleSpec(name, None, is_package=is_package)
        module.__package__ = spec.parent
        module.__file__ = directory + code.co_filename
        if is_package:
            path = directory + name.replace(".", "/")
            module.__path__ = spec.submodule_search_locations = [path]
        try:
            exec(code, vars(module))  # noqa: S102
        except BaseException:
            del sys.modules[name]
            raise
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], child, module)


if "plpy" in sys.modules:  # in a backend
    gc.disable()  # until ``entry`` is there: it would look again and again through what stays
    os.environ.setdefault("CRYPTOGRAPHY_OPENSSL_NO_LEGACY", "1")  # ciphers that nobody uses, 0.3 ms
    _load_together()
