"""Every command that is not a stage, in groups, with what it takes and what it runs.

Nothing of a command is imported here but its options: its target is when it runs.
"""

from functools import partial

from pipeline.commands import (
    delivery_options,
    fleet_options,
    foreign_options,
    options,
    site_options,
)
from pipeline.commands.command import Command

_PLAN = "doit plan says what a build would do"
_single = partial(Command, is_single=True)
_of_host = partial(Command, is_single=True, is_of_host=True)
_reader_of_host = partial(_of_host, only_reads=True, needs_output=False)

BUILD = (
    Command(
        "build",
        "build the guest",
        ".build:say_built",
        options.Build,
        example="name=web1 size=16G",
        after="config",
        elsewhere={"dry": _PLAN},
    ),
    Command(
        "create",
        "write a spec, build it",
        ".build:say_built",
        options.Create,
        example="name=web2 suite=bookworm ip=192.168.1.11/24 gateway=192.168.1.1",
        after="config",
        creates=True,
        elsewhere={"dry": _PLAN},
    ),
    Command(
        "plan",
        "say what a build would take: volumes, bytes, time",
        ".build:say_planned",
        options.Build,
        only_reads=True,
    ),
    Command(
        "why",
        "say why each stage would run",
        ".build:explain",
        options.Why,
        only_reads=True,
    ),
    _single(
        "adopt",
        "a root file system from elsewhere: a tar, folder, disk, ssh://HOST; mended, a spec for it",
        ".adopt:adopt",
        foreign_options.Adopt,
        example="name=web1 from=/srv/old.qcow2 dry=yes",
        is_of_host=True,
    ),
    Command(
        "report",
        "write a page about a built guest: packages, boot, proof, how it was made",
        ".report:report",
        options.Guests,
    ),
    Command("check", "verify the finished image", ".prove:check", options.Check),
    _single(
        "guests",
        "the specs, which are built, and what to type next",
        ".build:list_guests",
        only_reads=True,
    ),
    Command("test", "run the tests", ".build:run_tests", is_single=True, needs_output=False),
    _single(
        "completion",
        'completion of commands, guests and values: eval "$(./doit completion bash)"',
        ".completion:print_completion",
        options.Completion,
        example="bash",
        operand="shell",
        only_reads=True,
    ),
    _single(
        "ci-matrix",
        "a CI job a guest: format=gitlab or github",
        ".ci:write_matrix",
        site_options.CiMatrix,
        example="format=gitlab to=guests.yml",
        only_reads=True,
        needs_output=False,
    ),
    Command("docs", "the pages as a site, in output/docs", ".docs:build_site", is_single=True),
)

PROVE = (
    Command(
        "prove",
        "boot under real Xen, ask the guest",
        ".prove:prove",
        options.Prove,
        whole=".prove:prove_whole",
        example="name=test-drbd",
    ),
    _single(
        "prove-cfg",
        "boot a guest that was not built here: cfg=/etc/xen/web1.cfg",
        ".prove:prove_foreign",
        options.ProveCfg,
        example="cfg=/etc/xen/web1.cfg",
    ),
)


INSTALL = (
    Command(
        "publish",
        "an immutable copy of the proven guest: keep=7 rollback=yes",
        ".publish:publish",
        options.Publish,
        whole=".appliance_publication:publish",
    ),
    _single(
        "nightly",
        "a night: what nightly.toml names built, proven, published, told: limit=6h quiet=yes",
        ".nightly:nightly",
        delivery_options.Nightly,
        example="quiet=yes",
    ),
    _of_host(
        "promote",
        "move a channel of published versions: version= channel=stable rollback=yes",
        ".nightly:promote",
        delivery_options.Promote,
        "name=web1",
    ),
    _of_host(
        "install",
        "put a guest in its place on this Xen host",
        ".install:install",
        options.Install,
        "name=web1 from=published lvm=VG0",
        whole=".appliance:install",
    ),
    _of_host(
        "remove",
        "take a guest off this Xen host",
        ".install:remove",
        options.RemoveInstalled,
        "name=web1",
        whole=".appliance:remove",
    ),
    _of_host(
        "list-guests",
        "the guests of this Xen host: installed, running, out of date",
        ".install:list_guests",
        options.Listing,
        "json=yes",
        only_reads=True,
    ),
    _of_host(
        "refresh",
        "a new kernel for installed guests: undo=yes purge=yes",
        ".change:refresh",
        options.Refresh,
        "name=web1",
    ),
    _of_host(
        "resize",
        "a larger or smaller root disk: size=8G",
        ".change:resize",
        options.Resize,
        "name=web1 size=8G",
    ),
    _of_host(
        "rebuild",
        "a new root disk from today's golden image: undo=yes",
        ".change:rebuild",
        options.Rebuild,
        "name=web1",
    ),
    _of_host(
        "modernize",
        "an old PV guest that was not built here becomes a PVH guest: cfg= dry=yes undo=yes",
        ".modernize:modernize",
        foreign_options.Modernize,
        "cfg=/etc/xen/web1.cfg dry=yes",
    ),
    _of_host(
        "dom0",
        "this machine made a Xen host, as dom0.toml says: create=yes dry=yes now=yes undo=yes",
        ".dom0:dom0",
        site_options.Dom0,
        "dry=yes",
    ),
    _of_host(
        "doctor",
        "what will hurt here, each with its fix",
        ".doctor:doctor",
        options.Doctor,
        "dry=yes",
        clears=True,
    ),
)

DELIVERY = (
    _of_host(
        "export",
        "a built guest as other systems take it: format=xva, ova, vhd, vmdk, qcow2, raw, tar",
        ".export:export",
        delivery_options.Export,
        "name=web1 format=qcow2 to=/srv/images",
    ),
    _single(
        "keys",
        "the keys of an image repository: made, rotate=ROLE, sign=yes",
        ".delivery:keys",
        delivery_options.Keys,
        example="passphrase=/root/secrets/keys",
    ),
    _single(
        "upload-images",
        "copy the image repository to a folder, s3 or sftp",
        ".delivery:upload_images",
        delivery_options.Upload,
        example="to=s3://bucket/images",
    ),
    _of_host(
        "list-images",
        "what an image repository has",
        ".delivery:list_images",
        delivery_options.ListImages,
        "from=https://images.example.org root=/root/root.json",
    ),
    _of_host(
        "update",
        "the newest image of their channel for guests that came from a repository",
        ".delivery:update",
        delivery_options.Update,
        "name=web1 restart=yes",
    ),
)

FLEET = (
    _of_host(
        "push",
        "a guest with a whole disk into a pool of XCP-ng or XenServer: host= password= sr=",
        ".push:push",
        fleet_options.Push,
        "name=web1 host=xcp1 password=/root/secrets/xcp1",
    ),
    _of_host(
        "fleet",
        "many machines that build together: certificates, scheduler, worker, status, stop",
        ".fleet:fleet",
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
        ".verify:verify",
        delivery_options.Verify,
        "/srv/images/web1/current key=statements.pub",
        operand="folder",
    ),
    _of_host(
        "scan",
        "known vulnerabilities of a published version: db=FILE fail=high",
        ".verify:scan",
        delivery_options.Scan,
        "name=web1 db=security-tracker.json",
    ),
    _of_host(
        "reproduce",
        "build a published version again from its lock, compare bit for bit",
        ".verify:reproduce",
        delivery_options.Reproduce,
        "name=web1",
    ),
)

POWER = (
    _of_host(
        "start",
        "xl create of an installed or built guest; of an appliance's, in their order",
        ".power:start",
        options.Start,
        "name=web1",
        whole=".appliance:start",
    ),
    _of_host("console", "its console; Ctrl-] leaves", ".power:console", options.Guest, "name=web1"),
    _of_host(
        "ssh",
        "log in over SSH: command= address= user=",
        ".ssh:ssh",
        options.Ssh,
        "name=web1 command=uptime",
        only_reads=True,
    ),
    _of_host(
        "shutdown",
        "shut down one guest, an appliance's, or all=yes, and wait",
        ".power:shutdown",
        options.Shutdown,
        "name=web1",
        whole=".appliance:shutdown",
    ),
    _of_host(
        "reboot", "start it again, kernel as it was", ".power:reboot", options.Guest, "name=web1"
    ),
    _of_host(
        "destroy", "end it at once: yes=yes", ".power:destroy", options.Remove, "name=web1 yes=yes"
    ),
    _of_host("save", "its memory into a file", ".power:save", options.Guest, "name=web1"),
    _of_host("restore", "go on where save stopped", ".power:restore", options.Guest, "name=web1"),
    _of_host(
        "migrate",
        "move it: to=HOST live=yes dry=yes",
        ".power:migrate",
        options.Migrate,
        "name=web1 to=xen2 dry=yes",
    ),
)

STORE = (
    Command(
        "flatten",
        "make a clone=cow disk stand on its own",
        ".store:flatten",
        options.Guests,
    ),
    Command(
        "lock",
        "record and keep every package of the guest",
        ".store:lock",
        options.Build,
        after="config",
    ),
    _single(
        "gc",
        "remove what nobody needs, oldest first: keep=20G dry=yes",
        ".store:collect_garbage",
        site_options.Collect,
        example="keep=5G dry=yes",
        clears=True,
        needs_output=False,
    ),
    _of_host(
        "delete",
        "remove what was built of a guest: spec=yes dry=yes",
        ".delete:delete",
        options.Delete,
        "name=web1",
    ),
)

SITE = (
    _reader_of_host(
        "init",
        "make a folder of your own: specs, elements, mirrors, output",
        ".site:init",
        site_options.Init,
        "/srv/site",
        operand="folder",
    ),
    _reader_of_host(
        "import",
        "specs from configurations of xl, xm, libvirt, xen-tools: dry=yes",
        ".imports:import_files",
        foreign_options.Import,
        "/etc/xen/web1.cfg suite=bookworm dry=yes",
        operand="file",
    ),
    _reader_of_host(
        "import-xen-tools",
        "its guests/defaults.toml from xen-tools.conf",
        ".site:import_xen_tools",
        site_options.ImportXenTools,
        "/etc/xen-tools/xen-tools.conf dry=yes",
        operand="file",
    ),
)

XEN_TOOLS = (
    Command(
        "xen-create-image",
        "xen-create-image's own line: build a guest, install it",
        ".xen_tools:create_image",
        foreign_options.CreateImage,
        example="--hostname=web1 --dist bookworm --dhcp --lvm VG0 --size 4G",
        after="config",
        creates=True,
    ),
    _reader_of_host(
        "xen-list-images",
        "xen-list-images' own line: the configurations of /etc/xen",
        ".xen_tools:list_images",
        foreign_options.ListImages,
        "",
    ),
    _of_host(
        "xen-delete-image",
        "xen-delete-image's own line: what is installed, built and written of guests goes",
        ".xen_tools:delete_images",
        foreign_options.DeleteImages,
        "web1",
    ),
    _of_host(
        "xen-update-image",
        "xen-update-image's own line: guests started, upgraded, shut down",
        ".xen_tools:update_images",
        foreign_options.NamedImages,
        "web1",
    ),
)

MIRRORS = (
    _single(
        "mirrors",
        "probe the mirrors, name the best",
        ".mirrors:mirrors",
        site_options.Mirrors,
        example="suites=bookworm,trixie",
        needs_output=False,
    ),
    _single(
        "suites",
        "what is known of each release",
        ".mirrors:suites",
        site_options.Releases,
        example="suites=lenny,bookworm",
        only_reads=True,
    ),
    _single(
        "mirror-proxy",
        "run a caching proxy for builds",
        ".mirrors:mirror_proxy",
        site_options.MirrorProxy,
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
