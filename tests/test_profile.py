"""CPU profiles: what they promise about sources and geometry, what a wrong file is told, what people see."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from emu.exceptions import ProfileError
from emu.profile import PAGE_SIZES, TlbGeometry, array_for, load_profile, profile_names
from lab.profiles_view import (
    overview_as_dict,
    profile_as_dict,
    profile_rows,
    render_overview,
    render_profile,
)

DOCS = Path(__file__).parent.parent / "docs" / "profiles.md"
SHIPPED = ["broadwell", "haswell", "skylake", "zen2"]


def tiny() -> str:
    """The whole profile that docs/profiles.md shows."""
    (toml,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return str(toml)


def refusal(folder: Path, text: str) -> str:
    """What the loader says about a file with this text, without the folder it is in."""
    path = folder / "my.toml"
    path.write_text(text)
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    return str(caught.value).replace(f"{folder}/", "")


# What the shipped profiles promise


def test_four_profiles_are_shipped():
    assert profile_names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_value_is_cited_or_is_an_assumption_with_a_reason(name):
    profile = load_profile(name)
    for value in profile.values:
        cited = any(value.source.startswith(text) for text in profile.sources.values())
        assert cited or re.match(r"assumption: \w.{5,}", value.source), value.key


@pytest.mark.parametrize("name", SHIPPED)
def test_every_citation_is_used(name):
    profile = load_profile(name)
    used = {value.reference.partition(":")[0] for value in profile.values}
    assert set(profile.sources) == used - {"assumption"}


@pytest.mark.parametrize("name", SHIPPED)
def test_values_are_the_attributes_that_their_keys_name(name):
    profile = load_profile(name)
    for value in profile.values:
        attribute = eval(f"profile.{value.key}", {"profile": profile})
        assert (" ".join(attribute) if isinstance(attribute, tuple) else attribute) == value.value


def test_numbers_that_were_remembered_but_not_looked_up_say_so():
    for name in SHIPPED:
        for source in load_profile(name).sources.values():
            assert ("from memory" in source) == ("unverified" in source)


def test_only_intel_parts_have_pcids_and_meltdown():
    for name in SHIPPED:
        profile = load_profile(name)
        intel = profile.cpu.vendor == "GenuineIntel"
        assert (profile.features.pcid, profile.features.invpcid, profile.vulnerabilities.meltdown) == (intel,) * 3


@pytest.mark.parametrize(
    ("name", "signature"),
    [("skylake", 0x506E3), ("broadwell", 0x406F1), ("haswell", 0x40651), ("zen2", 0x870F10)],
)
def test_family_model_and_stepping_are_those_of_the_recorded_cpuid(name, signature):
    """CPUID leaf 1 EAX, Intel SDM Vol. 2A, CPUID, Figure 3-6."""
    base, extended = signature >> 8 & 0xF, signature >> 20 & 0xFF
    cpu = load_profile(name).cpu
    assert cpu.family == (base + extended if base == 0xF else base)
    assert cpu.model == (signature >> 12 & 0xF0 | signature >> 4 & 0xF)
    assert cpu.stepping == signature & 0xF


def test_second_level_tlbs_hash_as_they_were_reverse_engineered():
    stlbs = {name: array_for(load_profile(name).tlb.stlb, "4K") for name in SHIPPED}
    found = {name: (stlb.sets, stlb.associativity, stlb.hash_bits) for name, stlb in stlbs.items() if stlb}
    assert found == {
        "skylake": (128, 12, 7),  # XOR-7
        "broadwell": (256, 6, 8),  # XOR-8
        "haswell": (128, 8, 0),
        "zen2": (128, 16, 0),
    }


def test_zen2_keeps_all_page_sizes_in_one_array_and_smashes_1g_pages_in_the_second_level():
    tlb = load_profile("zen2").tlb
    (dtlb,) = tlb.dtlb
    assert [array_for(tlb.dtlb, size) for size in PAGE_SIZES] == [dtlb] * 3
    assert (dtlb.entries, dtlb.associativity, dtlb.sets) == (64, 64, 1)
    assert array_for(tlb.stlb, "1G") == array_for(tlb.stlb, "2M")


def test_a_null_system_call_leaves_room_for_the_kernel_within_the_published_140_cycles():
    """K. Garloff, 2018, measured 120 to 150 cycles for getppid() without PTI on these two."""
    for name in ("skylake", "broadwell"):
        costs = load_profile(name).costs
        assert costs.syscall + costs.sysret + 2 * costs.swapgs < 120


def test_page_fault_and_iret_cost_on_haswell_what_torvalds_measured():
    haswell = load_profile("haswell")
    assert (haswell.costs.page_fault, haswell.costs.iret) == (715, 330)
    assert "Torvalds" in haswell.value("costs.page_fault").source


def test_invpcid_costs_are_indexed_by_type():
    costs = load_profile("skylake").costs
    assert costs.invpcid[0] == costs.invpcid_address
    assert costs.invpcid[3] == costs.invpcid_all_nonglobal


def test_cycles_become_seconds_at_the_nominal_frequency():
    assert load_profile("skylake").seconds(3_300_000_000) == 1.0


# Hashes


@given(st.integers(0, 7), st.sampled_from(["linear", "xor"]), st.integers(0, 1 << 36))
def test_neighbouring_pages_spread_evenly_over_the_sets(set_bits, hash_name, first):
    """Both hashes permute every aligned run of as many pages as there are sets."""
    sets = 1 << set_bits
    array = TlbGeometry(sizes=("4K",), entries=4 * sets, ways=4, hash=hash_name)
    run = range(first // sets * sets, first // sets * sets + sets)
    assert sorted(map(array.set_of, run)) == list(range(sets))


def test_a_stride_of_128_pages_hits_one_set_with_a_linear_hash_and_all_with_xor_7():
    pages = range(0, 128 * 128, 128)
    linear = TlbGeometry(sizes=("4K",), entries=1536, ways=12, hash="linear")
    folded = TlbGeometry(sizes=("4K",), entries=1536, ways=12, hash="xor")
    assert len({linear.set_of(page) for page in pages}) == 1
    assert len({folded.set_of(page) for page in pages}) == 128


# Adding one


def test_the_profile_in_the_manual_loads_from_a_path(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(tiny())
    for name in (path, str(path)):
        profile = load_profile(name)
        assert (profile.name, profile.title) == ("tiny", "Tiny: a processor for exercises")
        assert profile.tlb.stlb == ()
        assert array_for(profile.tlb.dtlb, "1G") == profile.tlb.dtlb[1]
        assert array_for(profile.tlb.stlb, "1G") is None
        assert [profile.tlb.dtlb[0].set_of(page) for page in (0b0001, 0b0100, 0b0101)] == [1, 1, 0]


def test_a_value_has_its_own_source_or_that_of_its_table(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(tiny())
    profile = load_profile(path)
    lesson = "made up for exercises: small enough to fill by hand"
    assert profile.value("costs.syscall").source == f"{lesson}: tens and hundreds"
    assert profile.value("costs.walk_entry_read").is_assumption
    assert profile.value("caches.l1d.ways").source == lesson


def test_the_refusal_in_the_manual_is_what_the_loader_says(tmp_path):
    message = refusal(tmp_path, tiny().replace("entries = 8\nways = 2 ", "entries = 6\nways = 4 "))
    told = re.sub(r":\d+:", ":N:", message.replace("my.toml", "tiny.toml"))
    assert told in re.sub(r":\d+:", ":N:", DOCS.read_text())


@pytest.mark.parametrize(
    ("old", "new", "message", "where"),
    [
        # types, limits, words
        ("pcid = true", "pcid = 1", "features.pcid: 1 must be true or false", "pcid = 1"),
        ("rdtsc = 20", "rdtsc = 2.5", "costs.rdtsc: 2.5 must be a whole number", "rdtsc"),
        ("rdtsc = 20", "rdtsc = -1", "costs.rdtsc: -1 must be from 0 to 4294967296", "rdtsc"),
        ("stepping = 0", "stepping = 16", "cpu.stepping: 16 must be from 0 to 15", "stepping"),
        ('"GenuineIntel"', '"Intel"', 'cpu.vendor: "Intel" must be 12 ASCII characters', "vendor"),
        ("Tiny CPU @", "Tiny CPU" * 6, "cpu.brand: must be at most 47 ASCII characters", "brand"),
        ('"xor"', '"xor7"', 'tlb.dtlb[0].hash: "xor7" must be "linear" or "xor"', '"xor7"'),
        ("ways = 2 ", 'ways = "all" ', 'tlb.dtlb[0].ways: "all" must be a whole number or "full"', '"all"'),
        ('["2M"]', '["4M"]', 'tlb.dtlb[1].sizes: ["4M"] must be a list of "4K" or "2M" or "1G"', '"4M"'),
        ('title = "', 'title = 3 # "', "title: 3 must be text in quotes", "title"),
        # keys
        ("rdtsc = 20", "rdtscp = 20", "costs.rdtscp: unknown key, did you mean rdtsc?", "rdtscp"),
        ("rdtsc = 20\n", "", "costs.rdtsc: missing", "[costs]"),
        ("ways = 2 ", "", "tlb.dtlb[0].ways: missing", "[[tlb.dtlb]]"),
        ("[vulnerabilities]", "[weaknesses]", "weaknesses: unknown key", "[weaknesses]"),
        ("stlb = []", "stlb = 0", "tlb.stlb: expected a list of tables [[tlb.stlb]]", "stlb = 0"),
        ("stlb = []", "stlb = [1]", "tlb.stlb[0]: expected a table", "stlb = [1]"),
        # sources
        (
            'source = "lesson: t',
            '# source = "',
            "costs.instructions_per_cycle: no source",
            "instructions_per",
        ),
        ("lesson: t", "book: t", 'costs.instructions_per_cycle: source "book" is neither a key of', "instr"),
        (
            "assumption: every",
            "guess: every",
            'costs.walk_entry_read: source "guess" is neither',
            "walk_entry",
        ),
        (": every entry is read from the LLC", "", "costs.walk_entry_read: say why", "walk_entry"),
        ('lesson = "', 'lesson = 1 # "', "sources.lesson: must be text that says who measured", "lesson = 1"),
        # geometry
        (
            "entries = 8",
            "entries = 7",
            "tlb.dtlb[0].entries: 7 entries do not divide into 2 ways",
            "entries = 7",
        ),
        ("entries = 8", "entries = 6", "tlb.dtlb[0].entries: 6 entries in 2 ways make 3 sets", "entries = 6"),
        ("entries = 8", "entries = 2", "tlb.dtlb[0].hash: a single set has nothing to hash", '"xor"'),
        ('["2M"]', '["1G"]', "tlb.dtlb: 2M pages have no place", "[[tlb.dtlb]]"),
        ('["2M"]', '["4K", "2M"]', "tlb.dtlb: 4K pages have more than one place", "[[tlb.dtlb]]"),
        ("line = 64", "line = 48", "caches.line: 48 bytes; every x86-64 part has lines of 64", "line = 48"),
        (
            "l1d = { size_kib = 4, ways = 2",
            "l1d = { size_kib = 4, ways = 3",
            "caches.l1d: 4 KiB do not",
            "l1d = {",
        ),
        ("l1d = { size_kib = 4", "l1d = { size_kib = 6", "caches.l1d: 6 KiB in 2 ways make 48 sets", "l1d = {"),
    ],
)
def test_a_wrong_profile_is_refused_with_file_line_and_key(tmp_path, old, new, message, where):
    assert old in tiny()
    text = tiny().replace(old, new, 1)
    line = text[: text.index(where)].count("\n") + 1
    assert refusal(tmp_path, text).startswith(f"my.toml:{line}: {message}")


def test_what_is_not_toml_is_refused_with_line_and_column(tmp_path):
    text = tiny().replace("rdtsc = 20", "rdtsc 20")
    line = text[: text.index("rdtsc 20")].count("\n") + 1
    assert refusal(tmp_path, text).startswith(f"my.toml:{line}:7: not TOML: Expected '='")


def test_a_profile_without_a_table_of_sources_is_refused(tmp_path):
    assert refusal(tmp_path, 'title = "Mine"').startswith("my.toml: sources: missing table [sources]")


def test_a_last_level_cache_may_have_any_number_of_sets(tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text(tiny().replace("llc = { size_kib = 64", "llc = { size_kib = 96"))
    profile = load_profile(path)
    assert profile.caches.llc.sets(profile.caches.line) == 384


@given(st.data())
def test_a_damaged_profile_loads_or_is_refused_and_never_crashes(tmp_path_factory, data):
    text = tiny()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    noise = data.draw(st.text(alphabet='[]{}="\n.#,:0aé ', max_size=6))
    path = tmp_path_factory.getbasetemp() / "damaged.toml"
    path.write_text(text[:start] + noise + text[end:], encoding="utf-8")
    try:
        load_profile(path)
    except ProfileError as error:
        assert str(error).startswith(f"{path}:")


def test_a_name_nobody_knows_is_answered_with_the_names_there_are():
    with pytest.raises(ProfileError, match=r'no CPU profile "skylak": did you mean skylake\?'):
        load_profile("skylak")
    with pytest.raises(ProfileError, match="there are broadwell, haswell, skylake, zen2"):
        load_profile("6502")


def test_a_file_that_is_missing_or_no_text_is_one_clear_message(tmp_path):
    with pytest.raises(ProfileError, match=r"none\.toml: No such file or directory"):
        load_profile(tmp_path / "none.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\x7fELF\xff\xfe")
    with pytest.raises(ProfileError, match="not UTF-8 text, so not TOML"):
        load_profile(binary)


# What `cr3 profiles` shows


def shown(render, *arguments, width=80, terminal=False):
    output = io.StringIO()
    render(*arguments, Console(file=output, width=width, force_terminal=terminal, color_system=None))
    return output.getvalue()


def test_the_overview_has_a_line_for_each_profile():
    lines = shown(render_overview).splitlines()
    assert [line.split()[0] for line in lines] == ["profile", *SHIPPED]
    assert re.search(r"1536 +yes +yes +\d+ of \d+$", lines[3])


def test_away_from_a_terminal_each_value_is_one_whole_line_with_its_source():
    lines = shown(render_profile, "skylake", width=40).splitlines()
    assert len(lines) == len(profile_rows("skylake"))
    (line,) = [line for line in lines if line.startswith("costs.mov_to_cr3_noflush ")]
    assert re.search(r"191 cycles +Behrens et al\., EuroSys 2022.*unverified: swap cr3$", line)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_on_a_terminal_tables_fit_and_nothing_is_cut(width):
    profile = load_profile("broadwell")
    text = shown(render_profile, "broadwell", width=width, terminal=True)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for value in profile.values:
        assert value.key.partition(".")[2] in text
    for key in profile.sources:
        assert re.search(rf"^{key} ", text, re.MULTILINE)


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_the_overview_fits(width):
    text = shown(render_overview, width=width, terminal=True)
    assert max(map(len, text.splitlines())) <= width
    assert all(name in text for name in SHIPPED)


def test_the_json_forms_have_a_schema_and_the_same_rows():
    overview = json.loads(json.dumps(overview_as_dict()))
    assert overview["schema"] == "cr3.profiles/1"
    assert [row["name"] for row in overview["profiles"]] == SHIPPED
    profile = json.loads(json.dumps(profile_as_dict("zen2")))
    assert (profile["schema"], profile["name"]) == ("cr3.profile/1", "zen2")
    assert profile["values"] == profile_rows("zen2")
    assert {"key", "value", "unit", "source"} == set(profile["values"][0])
