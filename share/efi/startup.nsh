@echo -off
# fwu-ab: starts a bank when the firmware has lost its variables. Script of the UEFI shell, for the shared boot partition (ESP), which holds it, the shell, and nothing else.
#
# The firmware starts the shell (as \EFI\BOOT\BOOTX64.EFI, BOOTAA64.EFI, ... of the ESP, or its own) where BootOrder names nothing that it can start, and the shell starts this
# file, which lies in the root directory of the ESP. A board sets:
#   fwu_a, fwu_b   where the slots with the loaders are: the consistent mapping names of the shell, as the command "map -c" shows them when both slots hold a file system.
#                  Never fs0, fs1, ...: those are counted, and a sealed slot is not.
#   fwu_loader     path of the loader in the slot, as selector.efi.path in the configuration
#   fwu_args       what the kernel command line holds beside root= and fwu.bank=
#
# What it promises:
# - Bank a is tried, then b. A slot that holds nothing complete is sealed: it has no file system, so there is no file to start.
# - Whatever is started is told its bank. The service makes it the default, and makes the boot entries anew.
# - It ends in a reset, never in a prompt.
set -v fwu_a HD0c
set -v fwu_b HD0d
set -v fwu_loader \EFI\gateway\linux.efi
set -v fwu_args "rootwait ro panic=10"

if exist %fwu_a%:%fwu_loader% then
  echo fwu-ab: starting bank a
  %fwu_a%:%fwu_loader% root=PARTLABEL=rootfs_a fwu.bank=a %fwu_args%
endif
if exist %fwu_b%:%fwu_loader% then
  echo fwu-ab: starting bank b
  %fwu_b%:%fwu_loader% root=PARTLABEL=rootfs_b fwu.bank=b %fwu_args%
endif
echo fwu-ab: neither bank can be started
reset -c
