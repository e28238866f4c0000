"""The native code, compiled once and kept on disk as one object file.

numba compiles the functions of `callbacks.py` in some twenty seconds; importing numba alone takes longer than most
runs of cr3. So the machine code is written to a cache folder whose name is a fingerprint of everything it
depends on (it can never be stale), and later starts only load it, through LLVM's own linker.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import platformdirs

__all__ = ["addresses", "cache_file"]

_SOURCES = (
    *("native", "records", "state", "cache_state", "window_state", "pte", "tlb", "cache", "cycles", "walk"),
    *("soft_tlb", "recorder", "translate", "transfer", "fetch", "counting", "refused"),
    *("accesses", "cache_control", "predictor", "callbacks", "window", "delivery", "services"),
)
_PREFIX = "cr3_"
_UNUSED_SYMBOLS = (
    *("numba_gil_ensure", "numba_gil_release", "numba_unpickle", "numba_do_raise"),
    *("numba_runtime_build_excinfo_struct", "NRT_Free", "NRT_MemInfo_call_dtor"),
)
"""numba refers to these where a compiled function raises; ours never do. LLVM finds nothing if it misses one."""

_keep: list[Any] = []
"""The engine that owns the loaded code; it lives as long as the process."""


def _fingerprint() -> str:
    """A name for everything that the machine code depends on: sources, compiler, Python, processor."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    # llvmlite's version stands for numba's, which pins it; asking for numba's own would cost 40 ms at every start.
    digest.update(repr([llvmlite.__version__, sys.version, llvm.get_host_cpu_name()]).encode())
    return digest.hexdigest()[:16]


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def cache_file() -> Path:
    """The object file: beside this package, else in the user's cache folder, else in a temporary one."""
    name = f"native-{_fingerprint()}.o"
    folders = [Path(__file__).parent / "__pycache__", Path(platformdirs.user_cache_dir("cr3"))]
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    for folder in folders:
        if _is_writable(folder):
            return folder / name
    return Path(tempfile.mkdtemp(prefix="cr3-")) / name


def _link() -> bytes:
    """Compile all entries and link them into one object file."""
    os.environ.setdefault("NUMBA_OPT", "0")  # each entry would be optimised with all it calls; once is enough
    for name in ("cache_control", "callbacks", "window", "delivery", "services"):
        import_module(f"emu.{name}")
    from .native import ENTRIES, RARE

    whole: Any = None
    for name, compiled in ENTRIES.items():
        module = llvm.parse_assembly(compiled.inspect_llvm().replace("{ noinline }", "{ nounwind }"))
        module.get_function(compiled.native_name).name = _PREFIX + name
        if whole is None:
            whole = module
        else:
            whole.link_in(module)
    _hide_all_but_entries(whole, RARE)
    machine = _target_machine(whole.triple)
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(whole, passes)
    return bytes(machine.emit_object(whole))


def _hide_all_but_entries(module: Any, rare: list[str]) -> None:
    """What only entries call can be put into them, and left out otherwise; but not what is `rare`.

    numba forbids an entry to contain even the function that it is made of; `_link` has lifted that.
    """
    for function in module.functions:
        if not function.is_declaration and not function.name.startswith(_PREFIX):
            function.linkage = "internal"
            if any(f"{len(name)}{name}B" in function.name for name in rare):  # as numba mangles names
                function.add_function_attribute("noinline")


def _target_machine(triple: str) -> Any:
    features = llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3, reloc="static", codemodel="jitdefault", jit=True
    )


def _compile(file: Path) -> None:
    """Fill the cache; another process that does the same at the same time does no harm."""
    print("cr3: compiling the memory hardware, once (about a minute) ...", file=sys.stderr, flush=True)
    code = _link()
    handle, name = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
    with os.fdopen(handle, "wb") as stream:
        stream.write(code)
    Path(name).chmod(0o644)
    Path(name).replace(file)
    for outdated in file.parent.glob("native-*.o"):
        if outdated != file:
            outdated.unlink(missing_ok=True)


@cache
def addresses() -> dict[str, int]:
    """Host addresses of the native entries of `callbacks.py`, by name; compiles them if no cache has them."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    file = cache_file()
    if not file.exists():
        _compile(file)
    for symbol in _UNUSED_SYMBOLS:
        llvm.add_symbol(symbol, 1)
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    code = llvm.ObjectFileRef.from_path(str(file))
    names = _names(file)
    engine.add_object_file(code)
    engine.finalize_object()
    _keep.append(engine)
    return {name: engine.get_function_address(_PREFIX + name) for name in names}


def _names(file: Path) -> list[str]:
    """Names of the entries in an object file (they are in its string table, NUL-terminated)."""
    text = file.read_bytes()
    marker = b"\0" + _PREFIX.encode()
    return [part.split(b"\0", 1)[0].decode() for part in text.split(marker)[1:]]
