# fwu-ab: starts one of two banks. Boot script of the scheme "one-shot".
#
# Make boot.scr from it:  mkimage -A arm64 -T script -C none -d fwu-ab.cmd boot.scr
# Needs of U-Boot: hush, saveenv to a medium that keeps two copies (SYS_REDUNDAND_ENVIRONMENT), part, load, source.
# The environment should list this script's variables (fwu-ab.env beside this file is an example).
#
# Variables that belong to the update service and this script:
#   fwu_active    a or b: the default bank, started by every plain reset
#   fwu_trial     a or b: the bank to start once, by the next reset; else it does not exist
# Variables that the board sets, in its default environment:
#   fwu_iface     interface of the disk with the slots, as for load: mmc, nvme, virtio
#   fwu_disk      number of that disk on the interface
#   fwu_part_a    partition of bank a: number on the disk, HEXADECIMAL as for load
#   fwu_part_b    partition of bank b
#   fwu_kernel    file name of the kernel in either partition: /boot/Image
#   fwu_fdt       file name of the device tree in either partition; not set: U-Boot's own; -: the kernel takes none, as on x86
#   fwu_bootargs  what the kernel command line holds beside root=, fwu.bank= and, in a trial, fwu.trial
#   fwu_start     command that starts what was loaded: booti ${kernel_addr_r} - ${fwu_fdtaddr}
#                 (it may load more first, as an initrd, from ${fwu_iface} ${fwu_disk}:${fwu_part}: the bank's own slot)
#   kernel_addr_r, fdt_addr_r   where to load to, as every board has them
#
# What it promises:
# - An armed trial is started once. It is disarmed on the medium BEFORE its kernel is loaded, so that a reset, a hang or a
#   power cut at any later point starts the default bank. If the medium does not take the write, the trial is not started.
# - Nothing but the default bank and an armed trial is started. If the default bank cannot be loaded, the other one is NOT
#   tried: it holds an older image, or one that was never verified. The machine resets and tries again, for ever: a
#   transient fault heals so, and nobody is there to press a key.
# - A trial whose kernel cannot be loaded ends in a reset, which starts the default bank.
# - Only where fwu_active is neither a nor b (the environment was lost) a is tried, then b. A slot that holds nothing complete
#   is sealed: its file system cannot be read, so that load fails there.
# - The script never returns, as what comes after it in bootcmd might start something else.
#
# A default environment must not set fwu_active: if the environment is lost, that bank might be the sealed one.

# 1. An armed trial: disarm, save, and only then choose it. fwu_bank and fwu_mark are not set while the environment is saved.
setenv fwu_bank
setenv fwu_mark
if test "x${fwu_trial}" = "xa"; then
	setenv fwu_trial
	if saveenv; then
		setenv fwu_bank a
		setenv fwu_mark " fwu.trial"
	fi
elif test "x${fwu_trial}" = "xb"; then
	setenv fwu_trial
	if saveenv; then
		setenv fwu_bank b
		setenv fwu_mark " fwu.trial"
	fi
fi

# 2. No trial: the default bank; none known: first a, then b.
setenv fwu_banks "a b"
if test "x${fwu_bank}" != "x"; then
	setenv fwu_banks ${fwu_bank}
elif test "x${fwu_active}" = "xa"; then
	setenv fwu_banks a
elif test "x${fwu_active}" = "xb"; then
	setenv fwu_banks b
fi

# 3. Load and start. Whatever fails, the next of fwu_banks is tried, and there is a next one in one case only.
for fwu_try in ${fwu_banks}; do
	echo "fwu-ab: starting bank ${fwu_try}"
	if test "${fwu_try}" = "a"; then
		setenv fwu_part ${fwu_part_a}
	else
		setenv fwu_part ${fwu_part_b}
	fi
	setenv fwu_fdtaddr
	if test "x${fwu_part}" != "x" && part uuid ${fwu_iface} ${fwu_disk}:${fwu_part} fwu_uuid && load ${fwu_iface} ${fwu_disk}:${fwu_part} ${kernel_addr_r} ${fwu_kernel}; then
		if test "x${fwu_fdt}" = "x"; then
			setenv fwu_fdtaddr ${fdtcontroladdr}
		elif test "x${fwu_fdt}" = "x-"; then
			setenv fwu_fdtaddr -
		elif load ${fwu_iface} ${fwu_disk}:${fwu_part} ${fdt_addr_r} ${fwu_fdt}; then
			setenv fwu_fdtaddr ${fdt_addr_r}
		fi
		if test "x${fwu_fdtaddr}" != "x"; then
			setenv bootargs "root=PARTUUID=${fwu_uuid} fwu.bank=${fwu_try}${fwu_mark} ${fwu_bootargs}"
			run fwu_start
		fi
	fi
	echo "fwu-ab: bank ${fwu_try} cannot be started"
done

# 4. Only a reset is left.
sleep 5
reset
