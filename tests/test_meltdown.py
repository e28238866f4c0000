"""What a program can read of the kernel's memory, and what keeps it from that.

The secrets are random, so nothing but the machine can tell them. Where an ingredient of the attack is missing, no more
of them is found than by chance.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import pytest
from attack_programs import QUIET_ATTACK
from command import cr3

from emu import Machine, assemble
from emu.assembler import assemble_source
from emu.image import Image
from emu.profile import load_profile
from emu.pte import ADDRESS_MASK, PAGE_SHIFT, PAGE_SIZE, Pte
from kernel import Kernel, Result
from kernel.layout import DIRECT_MAP, VMALLOC
from lab.meltdown import PROGRAM, schema

SKYLAKE = load_profile("skylake")
STRING = assemble(PROGRAM)
LOAD = "    mov     al, [rcx]  "


def secret_of(seed: int, size: int) -> bytes:
    """Random bytes, none of them 0: a secret is text."""
    random = Random(seed)
    return bytes(random.randrange(1, 256) for _ in range(size))


def attacked(secret: bytes, image: Image = STRING, cpu: Any = SKYLAKE, **options: Any) -> tuple[bytes, Result]:
    """Run an attack; returns what the program printed."""
    stdout = io.BytesIO()
    kernel = Kernel(Machine(cpu, caches=True), secret=secret, stdout=stdout, **options)
    kernel.spawn(image)
    result = kernel.run()
    kernel.close()
    assert kernel.leaks() == {}
    return stdout.getvalue(), result


def found(secret: bytes, **settings: Any) -> int:
    """How many bytes an attack found."""
    leaked, _ = attacked(secret, **settings)
    return sum(a == b for a, b in zip(leaked, secret, strict=False))


def recovers(seed: int) -> None:
    secret = secret_of(seed, 32)
    assert attacked(secret)[0] == secret + b"\n"


def with_lfence() -> Image:
    before, load, behind = PROGRAM.read_text().partition(LOAD)
    return assemble_source(f"{before}{load}; lfence {behind}")


def found_behind(entry: Callable[[int], int], secret: bytes, cpu: Any = SKYLAKE) -> int:
    """The attack on another mapping of the secret's frame, whose page-table entry was changed."""
    stdout = io.BytesIO()
    kernel = Kernel(Machine(cpu, caches=True), secret=secret, stdout=stdout)
    assert kernel.secret is not None
    frame, offset = divmod(kernel.secret.address - DIRECT_MAP, PAGE_SIZE)
    alias = VMALLOC + (1 << 20)
    process = kernel.spawn(STRING)
    process.mm.page_table.install(alias, frame << PAGE_SHIFT | int(Pte.P | Pte.W | Pte.A | Pte.D | Pte.NX))
    kernel.secret.address = alias + offset
    at = process.mm.page_table.entry_address(alias)
    assert at is not None
    kernel.machine.ram.store64(at, entry(kernel.machine.ram.load64(at)))
    kernel.run()
    kernel.close()
    return sum(a == b for a, b in zip(stdout.getvalue(), secret, strict=False))


def nothing_is_found(seed: int, size: int) -> None:
    secret = secret_of(seed, size)
    fixed = replace(SKYLAKE, vulnerabilities=replace(SKYLAKE.vulnerabilities, meltdown=False))
    most = 1 + size // 16
    assert found(secret, pti=True) <= most
    assert found(secret, cpu=fixed) <= most
    assert found(secret, cpu="zen2") <= most
    assert found(secret, image=with_lfence()) <= most
    assert found(secret, empty_caches=True) <= most
    assert found_behind(lambda _entry: 0, secret) <= most


def test_a_program_reads_all_of_a_secret_of_the_kernels() -> None:
    secret = secret_of(1, 32)
    assert attacked(secret, cpu="haswell")[0] == attacked(secret, cpu="broadwell")[0] == secret + b"\n"
    leaked, result = attacked(secret)
    assert leaked == secret + b"\n"
    transient = result.stats["transient"]
    assert transient["windows"]["fault"] >= 32
    assert transient["loads"] >= 64 and transient["fills"] >= 32


def test_it_reads_nothing_where_an_ingredient_is_missing() -> None:
    nothing_is_found(1, 5)


@pytest.mark.slow
def test_so_it_is_with_other_secrets() -> None:
    for seed in range(2, 21):
        recovers(seed)
        nothing_is_found(seed, 32)


def test_an_entry_that_is_not_present_gives_the_secret_away_unless_its_address_is_inverted() -> None:
    """L1 terminal fault, and what Linux does against it in every entry that is not present (kernel/pte.py)."""
    secret = secret_of(4, 8)
    immune = replace(SKYLAKE, vulnerabilities=replace(SKYLAKE.vulnerabilities, l1tf=False))
    assert found_behind(lambda entry: entry & ~int(Pte.P), secret) == len(secret)
    assert found_behind(lambda entry: entry & ~int(Pte.P), secret, immune) == 0
    assert found_behind(lambda entry: (entry & ~int(Pte.P)) ^ ADDRESS_MASK, secret) == 0


def test_data_that_was_not_near_takes_a_second_attempt() -> None:
    """Without the kernel's help the first load of a line only brings it; the second one is given it."""
    alone = PROGRAM.read_text().replace(
        "    call    read_text\n\n    xor     ecx, ecx                    # line 3", "    xor     ecx, ecx # line 3"
    )
    assert alone != PROGRAM.read_text()
    assert attacked(b"far away", assemble_source(alone))[0] == b"far away\n"


def test_another_attack_that_never_faults_works_as_well() -> None:
    secret, quiet = secret_of(3, 6), assemble_source(QUIET_ATTACK)
    leaked, result = attacked(secret, quiet)
    assert leaked == secret
    assert result.stats["faults"]["protection"] == 0
    assert result.stats["transient"]["windows"]["fault"] == 0
    assert attacked(secret, quiet, pti=True)[0] == bytes(len(secret))
    careful = replace(SKYLAKE, vulnerabilities=replace(SKYLAKE.vulnerabilities, meltdown=False))
    assert attacked(secret, quiet, careful)[0] == bytes(len(secret))


def test_the_lectures_program_reads_one_byte(run_image: Any) -> None:
    ended = run_image(assemble("programs/meltdown.asm"), {"caches": True}, secret=b"K")
    assert (ended.stdout, ended.result.exit_code) == (b"K\n", 0)
    assert run_image(assemble("programs/meltdown.asm"), {"caches": True}, secret=b"K", pti=True).stdout == b"?\n"


def test_the_command_shows_what_leaked_and_why_nothing_does_with_isolation(tmp_path: Path) -> None:
    ended = cr3(
        "meltdown", "--secret", "Zeiss & søn", "--json", tmp_path / "runs.json", "--plot", tmp_path / "runs.png"
    )
    assert ended.exit_code == 0
    assert 'PTI off: "Zeiss & søn"' in ended.stdout
    assert "PTI on:  nothing leaked" in ended.stdout
    assert "not present: the walk ends in the" in ended.stdout
    document = json.loads((tmp_path / "runs.json").read_text())
    jsonschema.validate(document, schema())
    off, on = document["runs"]
    assert (off["pti"], off["leaked"], off["correct_bytes"]) == ("off", "Zeiss & søn", 12)
    assert (on["pti"], on["leaked"], on["correct_bytes"]) == ("on", "", 0)
    lowest = min(off["latencies"])
    assert off["latencies"].index(lowest) == ord("n")
    assert sorted(off["latencies"])[1] > 2 * lowest and min(on["latencies"]) > 2 * lowest
    assert (tmp_path / "runs.png").read_bytes().startswith(b"\x89PNG")


def test_a_secret_that_cannot_be_is_refused() -> None:
    for secret in ("", "x" * 4000):
        ended = cr3("meltdown", "--secret", secret)
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert "a secret has 1 to" in ended.stderr
