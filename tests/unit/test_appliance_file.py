"""appliances/NAME.toml: what it may say, and that every mistake has its file, key and way out."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline.appliance.appliance_file import (
    ApplianceFile,
    Expect,
    Member,
    Network,
    Replicated,
    SharedDisk,
    SplitBrain,
    read_appliance_file,
)
from pipeline.appliance.members import load_appliance, name_bridge, read_appliances
from pipeline.commands.build import list_guests
from pipeline.commands.options import Options
from pipeline.errors import PipelineError, SpecError, UsageError
from pipeline.guest.domains import domain_of
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Specs, load_all
from tests.unit.test_docs_commands import ROOT

PAGE = ROOT / "docs/reference/appliance-toml.md"
TWO = '[members.a]\nspec = "web"\n[members.b]\nspec = "web"\n'
WRONG = {
    "": ("members", "is missing", "[members.a]"),
    "members = {}": ("members", "at least 1 item", ""),
    "[members.a]": ("members.a.spec", "is missing", "add spec"),
    '[members.host]\nspec = "web"': ("members.host", "the host itself", "another name"),
    '[members.A]\nspec = "web"': ("members.A", "no name here", "a-z"),
    f'{TWO}after = ["c"]': ("members.b.after", "there is no 'c'", "a, b"),
    f'{TWO}after = ["b"]': ("members.b.after", "none would ever start", "leave one"),
    f'{TWO}ready = ["prot 80"]': ("members.b.ready.0", "no condition", "port NUMBER"),
    f'{TWO}ready = ["port 65536"]': ("members.b.ready.0", "no condition", "port NUMBER"),
    f"{TWO}[network.x]": ("network", "no such key", "networks"),
    f'{TWO}[networks.x]\nbridge = "a b"': ("networks.x.bridge", "not an interface", "at most 15"),
    f'{TWO}[shared.q]\nsize = "64M"\nmembers = ["a"]': ("shared.q.members", "at least 2", ""),
    f'{TWO}[shared.q]\nsize = "64M"\nmembers = ["a", "c"]': (
        *("shared.q.members", "there is no 'c'", "a, b"),
    ),
    f'{TWO}[shared.q]\nsize = "64M"\nmembers = ["b", "b"]': (
        *("shared.q.members", "different", "two"),
    ),
    f'{TWO}[networks.x]\n[replicated.r]\nsize = "64M"\nmembers = ["a", "a"]\nnetwork = "x"': (
        *("replicated.r.members", "different", "two"),
    ),
    f'{TWO}[shared.q]\nsize = "64"\nmembers = ["a", "b"]': ("shared.q.size", "not a size", "512M"),
    f'{TWO}[replicated.r]\nsize = "64M"\nmembers = ["a", "b"]': (
        *("replicated.r.network", "is missing", "add network"),
    ),
    f'{TWO}[[expect]]\nname = "x"\nmember = "c"\ncommand = "true"': (
        *("expect[0].member", "there is no 'c'", "host"),
    ),
    f'{TWO}[[expect]]\nname = "x"\nmember = "a"\ncommand = "true"\noutput = "("': (
        *("expect.0.output", "no regular expression", "Python"),
    ),
    "[members": ("", "not TOML", ""),
}


@pytest.fixture
def shop(project: Project) -> Project:
    project.appliances.mkdir()
    (project.guests / "web.toml").write_text('size = "1G"\naddress = "10.0.0.5/24"\nhostname = "w"')
    return project


def write(project: Project, text: str, name: str = "shop") -> Path:
    path = project.appliances / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text.splitlines()[-1] if text else "empty")
def test_a_mistake_is_named_with_its_key(shop: Project, text: str) -> None:
    subject, message, hint = WRONG[text]
    with pytest.raises(SpecError) as caught:
        read_appliance_file(write(shop, text))
    (problem,) = caught.value.problems
    assert problem.subject == subject
    assert message in problem.message
    assert hint in problem.hint
    assert problem.source == "appliances/shop.toml"


def test_members_are_guests_with_what_the_appliance_says_of_them(shop: Project) -> None:
    path = write(
        shop,
        '[networks.link]\n[members.a]\nspec = "web"\nmemory = "512M"\n'
        'interfaces = [{ network = "link", address = "10.7.0.1/29" }]\n'
        '[members.b]\nspec = "web"\nafter = ["c"]\nnetwork = "link"\naddress = "10.7.0.2/29"\n'
        '[members.c]\nspec = "web"\nhostname = "gate"\n',
    )
    appliance = load_appliance(shop, path.stem)
    first, second, third = appliance.members.values()
    assert (first.name, first.hostname, first.memory, first.size) == (
        "shop-a",
        "shop-a",
        "512M",
        "1G",
    )
    assert first.dhcp, "an address belongs to one guest alone"
    assert [card.bridge for card in (first, *first.interfaces)] == ["br-xen", "shop-link"]
    assert (second.bridge, second.address) == ("shop-link", ("10.7.0.2/29",))
    assert third.hostname == "gate"
    assert appliance.bridges == {"link": "shop-link"}
    assert appliance.start_order() == ("a", "c", "b")
    assert read_appliances(shop).guests_of("shop") == ("shop-a", "shop-c", "shop-b")


def test_a_replicated_disk_tells_each_node_of_the_other(shop: Project) -> None:
    text = (
        '[networks.link]\n[members.a]\nspec = "web"\nnetwork = "link"\naddress = "10.7.0.1/29"\n'
        '[members.b]\nspec = "web"\nhostname = "bee"\n{}'
        '[replicated.r0]\nmembers = ["a", "b"]\nnetwork = "link"\nsize = "64M"\nminor = 3\n'
        '[replicated.r0.split_brain]\nafter_1pri = "discard-secondary"\n'
    )
    write(shop, text.format('interfaces = [{ network = "link", address = "10.7.0.2/29" }]\n'))
    first, second = (each.replicated[0] for each in load_appliance(shop, "shop").members.values())
    assert (first.name, first.minor, first.pair, first.size) == ("r0", 3, "shop", "64M")
    assert (first.address, first.peer, first.peer_address) == ("10.7.0.1", "bee", "10.7.0.2")
    assert (second.address, second.peer) == ("10.7.0.2", "shop-a")
    assert {first.after_1pri, second.after_1pri} == {"discard-secondary"}
    write(shop, text.format(""))
    with pytest.raises(SpecError, match="members.b.interfaces: r0 is replicated over link"):
        load_appliance(shop, "shop")


def test_a_shared_disk_lies_with_the_first_of_its_members(shop: Project) -> None:
    text = TWO + '{}[members.c]\nspec = "web"\n[shared.q]\nmembers = ["b", "a"]\nsize = "64M"\n'
    write(shop, text.format(""))
    first, second, third = load_appliance(shop, "shop").members.values()
    assert {disk.owner for spec in (first, second) for disk in spec.shared} == {"shop-b"}
    places = {}
    for spec in (first, second):
        disk = domain_of(spec, shop).disks[-1]
        assert (disk.vdev, disk.access) == ("xvda3", "shared")
        places[disk.target] = spec.parts[-1].size_mib
    assert places == {str(shop.artifact("shop-b") / "disk-q.img"): 64}
    assert not third.shared and len(domain_of(third, shop).disks) == 2
    write(shop, text.format('shared = [{ name = "x", size = "1M", owner = "web" }]\n'))
    with pytest.raises(SpecError, match="members.b.shared: the appliance says it"):
        load_appliance(shop, "shop")


@pytest.mark.parametrize("name", ["swap", "disk", "boot", "r0"])
def test_a_shared_disk_has_a_name_of_its_own(shop: Project, name: str) -> None:
    text = (
        '[networks.x]\n[members.a]\nspec = "web"\nnetwork = "x"\naddress = "10.7.0.1/29"\n'
        '[members.b]\nspec = "web"\nnetwork = "x"\naddress = "10.7.0.2/29"\n'
        '[replicated.r0]\nmembers = ["a", "b"]\nnetwork = "x"\nsize = "64M"\n'
        f'[shared.{name}]\nmembers = ["a", "b"]\nsize = "64M"\n'
    )
    write(shop, text)
    with pytest.raises(SpecError) as caught:
        load_appliance(shop, "shop")
    for problem, member in zip(caught.value.problems, "ab", strict=True):
        assert (problem.subject, problem.hint) == ("shared[0].name", "name it else")
        assert problem.text == f"'{name}' is another disk's name"
        assert problem.source == f"appliances/shop.toml: members.{member}"


def test_mistakes_in_what_a_member_is_name_file_member_and_key(shop: Project) -> None:
    text = (
        '[networks.link]\n[members.a]\nspec = "wbe"\n[members.b]\nspec = "web"\nmemroy = "1G"\n'
        'size = "4X"\nnetwork = "lnk"\n[members.c]\nspec = "web"\nnetwork = "link"\n'
        'interfaces = [{ network = "link", bridge = "br0", address = "10.7.0.1/29" }]\n'
    )
    write(shop, text)
    with pytest.raises(SpecError) as caught:
        load_appliance(shop, "shop")
    told = {f"{each.source}: {each.subject}: {each.hint}" for each in caught.value.problems}
    for part in (
        "appliances/shop.toml: members.a.spec: did you mean 'web'?",
        "appliances/shop.toml: members.b: memroy: did you mean 'memory'?",
        "appliances/shop.toml: members.b.network: did you mean 'link'?",
        "appliances/shop.toml: members.b: size: write it as 4G, 512M",
        "appliances/shop.toml: members.c.address: write address",
        "appliances/shop.toml: members.c.interfaces[0].bridge: leave bridge out",
    ):
        assert any(line.startswith(part) for line in told), (part, told)


def test_a_broken_appliance_stops_no_guest_and_no_other_appliance(shop: Project) -> None:
    write(shop, "[members", "broken")
    write(shop, TWO)
    known = read_appliances(shop)
    specs = load_all(shop.guests, further=known.guests)
    assert set(specs) == {"web", "shop-a", "shop-b"}
    with pytest.raises(SpecError, match="not TOML"):
        load_appliance(shop, "broken")
    with pytest.raises(UsageError, match="there is no appliance 'shp'") as caught:
        load_appliance(shop, "shp")
    assert "did you mean 'shop'?" in caught.value.hint


def test_the_list_of_guests_says_what_belongs_together(
    shop: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write(shop, TWO)
    write(shop, "[members", "broken")
    list_guests(Recipe(shop, ()), Specs(), Options.model_validate({}))
    said = " ".join(capsys.readouterr().out.split())
    assert "appliances: shop shop-a, shop-b broken BROKEN: not TOML" in said


def test_a_member_and_a_guest_of_one_name_are_a_mistake_of_the_member(shop: Project) -> None:
    (shop.guests / "shop-a.toml").write_text("")
    write(shop, TWO)
    with pytest.raises(SpecError, match="there is a guest shop-a already"):
        load_appliance(shop, "shop")


def test_a_bridge_has_a_name_that_linux_takes_and_its_own() -> None:
    names = {name_bridge(f"a-long-appliance{end}", "a-network") for end in ("", "2", "3")}
    assert len(names) == 3
    assert all(len(name) <= 15 for name in names)


def test_the_shipped_appliances_are_sound() -> None:
    for path in (ROOT / "appliances").glob("*.toml"):
        project = Project(ROOT, ROOT / "output", ROOT / "guests")
        assert load_appliance(project, path.stem).members


values = st.recursive(
    st.sampled_from(["a", "b", "web", "link", "login", "64M", "10.7.0.1/29", "", "x y", True, 7]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcl"), inner, max_size=2)
    ),
    max_leaves=6,
)
keys = st.sampled_from(
    "spec after ready interfaces network address members size port minor split_brain name member "
    "command output bridge replicated hostname partitions".split()
)
tables = st.dictionaries(keys, values, max_size=4)
named = st.dictionaries(st.sampled_from(["a", "b", "link", "A"]), tables | values, max_size=2)


def render(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f'"{key}" = {render(each)}' for key, each in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(render, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


@given(
    table=st.fixed_dictionaries(
        {"members": named},
        optional={
            **dict.fromkeys(["networks", "replicated", "shared"], named),
            "expect": st.lists(tables, max_size=2) | values,
        },
    )
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_it_is_an_appliance_or_a_mistake_with_a_place(
    shop: Project, table: dict[str, Any]
) -> None:
    write(shop, "".join(f"{key} = {render(value)}\n" for key, value in table.items()))
    try:
        appliance = load_appliance(shop, "shop")
    except PipelineError as error:
        assert isinstance(error, SpecError), error
        assert all("appliances/shop.toml" in problem.source for problem in error.problems)
        assert all(problem.subject and problem.text for problem in error.problems)
    else:
        assert set(appliance.start_order()) == set(appliance.members)


def test_the_page_has_every_key() -> None:
    tables: list[type[BaseModel]] = [ApplianceFile, Network, Member, Replicated, SplitBrain]
    tables += [SharedDisk, Expect]
    keys = {key for table in tables for key in table.model_fields}
    page = PAGE.read_text()
    written = set(re.findall(r"^\| `([a-z0-9_]+)` \|", page, re.MULTILINE))
    written |= set(re.findall(r"^## `\[+([a-z]+)", page, re.MULTILINE))
    assert keys <= written, keys - written
    assert written - keys <= {"network"}, written - keys
