"""Menus are read as pygrub reads them, and written so that it can."""

import pytest

from pipeline.xen.grub_menu import MenuEntry, find_menu, parse_grub_cfg, parse_menu_lst
from pipeline.xen.values import SyntaxFault
from tests.grub_menus import render_menus

ENTRIES = [
    MenuEntry("Debian", "/boot/vmlinuz", "/boot/initrd.img", "root=/dev/xvda1 ro console=hvc0"),
    MenuEntry("Rescue", "/boot/vmlinuz", None, "single"),
]
UPDATE_GRUB = """
set default="${next_entry}"
if [ "${next_entry}" ] ; then
   set default="1"
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    save_env saved_entry
  fi
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'simple' {
    insmod ext2
    if [ x$feature = xy ]; then
      search --no-floppy --fs-uuid --set=root 1234
    fi
    echo 'Loading Linux ...'
    linux (hd0,msdos1)/boot/vmlinuz-6.1 root=UUID=1234 ro
    initrd /boot/initrd.img-6.1
}
submenu 'Advanced options' $menuentry_id_option 'advanced' {
    menuentry 'Old' --class debian {
        linux /boot/vmlinuz-5.10 root=UUID=1234 ro single
    }
}
"""


def test_both_menus_say_the_same_and_are_read_back() -> None:
    legacy, modern = render_menus(ENTRIES)
    assert list(parse_menu_lst(legacy).entries) == ENTRIES
    assert list(parse_grub_cfg(modern).entries) == ENTRIES


def test_what_update_grub_writes_is_read_and_its_submenus_are_flattened() -> None:
    menu = parse_grub_cfg(UPDATE_GRUB)
    assert [entry.title for entry in menu.entries] == ["Debian GNU/Linux", "Old"]
    assert menu.entries[0].kernel == "/boot/vmlinuz-6.1"
    assert menu.entries[0].initrd == "/boot/initrd.img-6.1"
    assert menu.default_entry.title == "Old"


def test_old_pygrub_reads_menu_lst_only_and_new_pygrub_prefers_grub_cfg() -> None:
    legacy, modern = render_menus(ENTRIES)
    both = {"/boot/grub/menu.lst": legacy, "/boot/grub/grub.cfg": modern}
    for version, path in (((3, 2), "/boot/grub/menu.lst"), ((4, 17), "/boot/grub/grub.cfg")):
        found = find_menu(both, version)
        assert found is not None
        assert found[0] == path
    assert find_menu({"/boot/grub/grub.cfg": modern}, (3, 2)) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "menuentry 'a' {\nlinux /x\n", "}\n", "menuentry 'a' {\nmenuentry 'b' {\n}\n}\n"),
        *("menuentry 'a' {\nchainloader +1\n}\n", 'menuentry "a"{\nlinux /x\n}\n'),
    ],
)
def test_a_grub_cfg_that_pygrub_gives_up_on_is_refused(text: str) -> None:
    with pytest.raises(SyntaxFault):
        parse_grub_cfg(text)


def test_a_menu_lst_with_a_default_entry_is_read() -> None:
    text = "default=1\ntimeout 5\n# c\ntitle One\nkernel /a x\ntitle Two\nroot (hd0)\nkernel /b\n"
    assert parse_menu_lst(text).default_entry == MenuEntry("Two", "/b")
