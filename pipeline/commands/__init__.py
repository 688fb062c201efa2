"""Every command that is not a stage, in groups, with what it takes and what it runs.

Nothing of a command is imported here but its options: its target is when it runs.
"""

from functools import partial

from pipeline.commands import (
    adopt_options,
    ci_options,
    collect_options,
    delivery_options,
    dom0_options,
    export_options,
    fleet_options,
    foreign_options,
    mirror_options,
    modernize_options,
    night_options,
    options,
    push_options,
    site_options,
    supply_options,
    xen_tools_options,
)
from pipeline.commands.command import Command

_ROOM = "pipeline.commands"
_PLAN = "doit plan says what a build would do"
_single = partial(Command, is_single=True)

BUILD = (
    Command(
        "build",
        "build the guest",
        f"{_ROOM}.build:say_built",
        options.Build,
        example="name=web1 size=16G",
        after="config",
        elsewhere={"dry": _PLAN},
    ),
    Command(
        "create",
        "write a spec, build it",
        f"{_ROOM}.build:say_built",
        options.Create,
        example="name=web2 suite=bookworm ip=192.168.1.11/24 gateway=192.168.1.1",
        after="config",
        creates=True,
        elsewhere={"dry": _PLAN},
    ),
    Command(
        "plan",
        "say what a build would take: volumes, bytes, time",
        f"{_ROOM}.build:say_planned",
        options.Build,
        only_reads=True,
    ),
    Command(
        "why",
        "say why each stage would run",
        f"{_ROOM}.build:explain",
        options.Why,
        only_reads=True,
    ),
    _single(
        "adopt",
        "a root file system from elsewhere: a tar, folder, disk, ssh://HOST; mended, a spec for it",
        f"{_ROOM}.adopt:adopt",
        adopt_options.Adopt,
        example="name=web1 from=/srv/old.qcow2 dry=yes",
        is_of_host=True,
    ),
    Command(
        "report",
        "write a page about a built guest: packages, boot, proof, how it was made",
        f"{_ROOM}.report:report",
        options.Guests,
    ),
    Command("check", "verify the finished image", f"{_ROOM}.prove:check", options.Check),
    _single(
        "guests",
        "the specs, which are built, and what to type next",
        f"{_ROOM}.build:list_guests",
        only_reads=True,
    ),
    Command(
        "test", "run the tests", f"{_ROOM}.build:run_tests", is_single=True, needs_output=False
    ),
    _single(
        "completion",
        'completion of commands, guests and values: eval "$(./doit completion bash)"',
        f"{_ROOM}.completion:print_completion",
        options.Completion,
        example="bash",
        operand="shell",
        only_reads=True,
    ),
    _single(
        "ci-matrix",
        "a CI job a guest: format=gitlab or github",
        f"{_ROOM}.ci:write_matrix",
        ci_options.CiMatrix,
        example="format=gitlab to=guests.yml",
        only_reads=True,
        needs_output=False,
    ),
    Command(
        "docs", "the pages as a site, in output/docs", f"{_ROOM}.docs:build_site", is_single=True
    ),
)

PROVE = (
    Command(
        "prove",
        "boot under real Xen, ask the guest",
        f"{_ROOM}.prove:prove",
        options.Prove,
        whole=f"{_ROOM}.prove:prove_whole",
        example="name=test-drbd",
    ),
    _single(
        "prove-cfg",
        "boot a guest that was not built here: cfg=/etc/xen/web1.cfg",
        f"{_ROOM}.prove:prove_foreign",
        options.ProveCfg,
        example="cfg=/etc/xen/web1.cfg",
    ),
)


def _of_host(
    name: str,
    doc: str,
    target: str,
    takes: type[options.Options] = options.Guest,
    example: str = "name=web1",
    *,
    only_reads: bool = False,
    clears: bool = False,
    needs_output: bool = True,
    operand: str = "",
    whole: str = "",
) -> Command:
    return Command(
        name,
        doc,
        f"{_ROOM}.{target}",
        takes,
        example,
        is_single=True,
        is_of_host=True,
        only_reads=only_reads,
        clears=clears,
        needs_output=needs_output,
        operand=operand,
        whole=f"{_ROOM}.{whole}" if whole else "",
    )


_reader_of_host = partial(_of_host, only_reads=True, needs_output=False)

INSTALL = (
    Command(
        "publish",
        "an immutable copy of the proven guest: keep=7 rollback=yes",
        f"{_ROOM}.publish:publish",
        options.Publish,
        whole=f"{_ROOM}.appliance_publication:publish",
    ),
    _single(
        "nightly",
        "a night: what nightly.toml names built, proven, published, told: limit=6h quiet=yes",
        f"{_ROOM}.nightly:nightly",
        night_options.Nightly,
        example="quiet=yes",
    ),
    _of_host(
        "promote",
        "move a channel of published versions: version= channel=stable rollback=yes",
        "nightly:promote",
        night_options.Promote,
    ),
    _of_host(
        "install",
        "put a guest in its place on this Xen host",
        "install:install",
        options.Install,
        "name=web1 from=published lvm=VG0",
        whole="appliance:install",
    ),
    _of_host(
        "remove",
        "take a guest off this Xen host",
        "install:remove",
        options.RemoveInstalled,
        whole="appliance:remove",
    ),
    _of_host(
        "list-guests",
        "the guests of this Xen host: installed, running, out of date",
        "install:list_guests",
        options.Listing,
        "json=yes",
        only_reads=True,
    ),
    _of_host(
        "refresh",
        "a new kernel for installed guests: undo=yes purge=yes",
        "change:refresh",
        options.Refresh,
    ),
    _of_host(
        "resize",
        "a larger or smaller root disk: size=8G",
        "change:resize",
        options.Resize,
        "name=web1 size=8G",
    ),
    _of_host(
        "rebuild",
        "a new root disk from today's golden image: undo=yes",
        "change:rebuild",
        options.Rebuild,
    ),
    _of_host(
        "modernize",
        "an old PV guest that was not built here becomes a PVH guest: cfg= dry=yes undo=yes",
        "modernize:modernize",
        modernize_options.Modernize,
        "cfg=/etc/xen/web1.cfg dry=yes",
    ),
    _of_host(
        "dom0",
        "this machine made a Xen host, as dom0.toml says: create=yes dry=yes now=yes undo=yes",
        "dom0:dom0",
        dom0_options.Dom0,
        "dry=yes",
    ),
    _of_host(
        "doctor",
        "what will hurt here, each with its fix",
        "doctor:doctor",
        options.Doctor,
        "dry=yes",
        clears=True,
    ),
)

DELIVERY = (
    _of_host(
        "export",
        "a built guest as other systems take it: format=xva, ova, vhd, vmdk, qcow2, raw, tar",
        "export:export",
        export_options.Export,
        "name=web1 format=qcow2 to=/srv/images",
    ),
    _single(
        "keys",
        "the keys of an image repository: made, rotate=ROLE, sign=yes",
        f"{_ROOM}.delivery:keys",
        delivery_options.Keys,
        example="passphrase=/root/secrets/keys",
    ),
    _single(
        "upload-images",
        "copy the image repository to a folder, s3 or sftp",
        f"{_ROOM}.delivery:upload_images",
        delivery_options.Upload,
        example="to=s3://bucket/images",
    ),
    _of_host(
        "list-images",
        "what an image repository has",
        "delivery:list_images",
        delivery_options.ListImages,
        "from=https://images.example.org root=/root/root.json",
    ),
    _of_host(
        "update",
        "the newest image of their channel for guests that came from a repository",
        "delivery:update",
        delivery_options.Update,
        "name=web1 restart=yes",
    ),
)

FLEET = (
    _of_host(
        "push",
        "a guest with a whole disk into a pool of XCP-ng or XenServer: host= password= sr=",
        "push:push",
        push_options.Push,
        "name=web1 host=xcp1 password=/root/secrets/xcp1",
    ),
    _of_host(
        "fleet",
        "many machines that build together: certificates, scheduler, worker, status, stop",
        "fleet:fleet",
        fleet_options.Fleet,
        "certificates parties=build1@10.0.0.5,build2",
        needs_output=False,
        operand="what",
    ),
)

SUPPLY = (
    _reader_of_host(
        "verify",
        "a published version against its signed statements, offline: key=FILE",
        "verify:verify",
        supply_options.Verify,
        "/srv/images/web1/current key=statements.pub",
        operand="folder",
    ),
    _of_host(
        "scan",
        "known vulnerabilities of a published version: db=FILE fail=high",
        "verify:scan",
        supply_options.Scan,
        "name=web1 db=security-tracker.json",
    ),
    _of_host(
        "reproduce",
        "build a published version again from its lock, compare bit for bit",
        "verify:reproduce",
        supply_options.Reproduce,
    ),
)

POWER = (
    _of_host(
        "start",
        "xl create of an installed or built guest; of an appliance's, in their order",
        "power:start",
        options.Start,
        whole="appliance:start",
    ),
    _of_host("console", "its console; Ctrl-] leaves", "power:console"),
    _of_host(
        "ssh",
        "log in over SSH: command= address= user=",
        "ssh:ssh",
        options.Ssh,
        "name=web1 command=uptime",
        only_reads=True,
    ),
    _of_host(
        "shutdown",
        "shut down one guest, an appliance's, or all=yes, and wait",
        "power:shutdown",
        options.Shutdown,
        whole="appliance:shutdown",
    ),
    _of_host("reboot", "start it again, kernel as it was", "power:reboot"),
    _of_host(
        "destroy", "end it at once: yes=yes", "power:destroy", options.Remove, "name=web1 yes=yes"
    ),
    _of_host("save", "its memory into a file", "power:save"),
    _of_host("restore", "go on where save stopped", "power:restore"),
    _of_host(
        "migrate",
        "move it: to=HOST live=yes dry=yes",
        "power:migrate",
        options.Migrate,
        "name=web1 to=xen2 dry=yes",
    ),
)

STORE = (
    Command(
        "flatten",
        "make a clone=cow disk stand on its own",
        f"{_ROOM}.store:flatten",
        options.Guests,
    ),
    Command(
        "lock",
        "record and keep every package of the guest",
        f"{_ROOM}.store:lock",
        options.Build,
        after="config",
    ),
    _single(
        "gc",
        "remove what nobody needs, oldest first: keep=20G dry=yes",
        f"{_ROOM}.store:collect_garbage",
        collect_options.Collect,
        example="keep=5G dry=yes",
        clears=True,
        needs_output=False,
    ),
    _of_host(
        "delete",
        "remove what was built of a guest: spec=yes dry=yes",
        "delete:delete",
        options.Delete,
    ),
)

SITE = (
    _reader_of_host(
        "init",
        "make a folder of your own: specs, elements, mirrors, output",
        "site:init",
        site_options.Init,
        "/srv/site",
        operand="folder",
    ),
    _reader_of_host(
        "import",
        "specs from configurations of xl, xm, libvirt, xen-tools: dry=yes",
        "imports:import_files",
        foreign_options.Import,
        "/etc/xen/web1.cfg suite=bookworm dry=yes",
        operand="file",
    ),
    _reader_of_host(
        "import-xen-tools",
        "its guests/defaults.toml from xen-tools.conf",
        "site:import_xen_tools",
        site_options.ImportXenTools,
        "/etc/xen-tools/xen-tools.conf dry=yes",
        operand="file",
    ),
)

XEN_TOOLS = (
    Command(
        "xen-create-image",
        "xen-create-image's own line: build a guest, install it",
        f"{_ROOM}.xen_tools:create_image",
        xen_tools_options.CreateImage,
        example="--hostname=web1 --dist bookworm --dhcp --lvm VG0 --size 4G",
        after="config",
        creates=True,
    ),
    _reader_of_host(
        "xen-list-images",
        "xen-list-images' own line: the configurations of /etc/xen",
        "xen_tools:list_images",
        xen_tools_options.ListImages,
        "",
    ),
    _of_host(
        "xen-delete-image",
        "xen-delete-image's own line: what is installed, built and written of guests goes",
        "xen_tools:delete_images",
        xen_tools_options.DeleteImages,
        "web1",
    ),
    _of_host(
        "xen-update-image",
        "xen-update-image's own line: guests started, upgraded, shut down",
        "xen_tools:update_images",
        xen_tools_options.NamedImages,
        "web1",
    ),
)

MIRRORS = (
    _single(
        "mirrors",
        "probe the mirrors, name the best",
        f"{_ROOM}.mirrors:mirrors",
        mirror_options.Mirrors,
        example="suites=bookworm,trixie",
        needs_output=False,
    ),
    _single(
        "suites",
        "what is known of each release",
        f"{_ROOM}.mirrors:suites",
        mirror_options.Releases,
        example="suites=lenny,bookworm",
        only_reads=True,
    ),
    _single(
        "mirror-proxy",
        "run a caching proxy for builds",
        f"{_ROOM}.mirrors:mirror_proxy",
        mirror_options.MirrorProxy,
        example="stay=yes",
        needs_output=False,
    ),
)

GROUPS = {
    "build guests, and ask about them": BUILD,
    "boot them under real Xen": PROVE,
    "publish guests, install them on a Xen host, and their life there": INSTALL,
    "what is signed, an image repository": DELIVERY + SUPPLY,
    "what runs on this host": POWER,
    "what is kept: the store, the package cache, locks": STORE,
    "a site: a folder of your own; xen-tools' own lines": SITE + XEN_TOOLS,
    "mirrors, the caching proxy, releases": MIRRORS,
    "many machines, pools of XCP-ng": FLEET,
}
COMMANDS = {command.name: command for group in GROUPS.values() for command in group}
