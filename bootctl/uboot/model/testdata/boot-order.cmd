# What boot scripts of boards prepared for RAUC do, as far as it matters here, in words of our own.
if test "x${BOOT_ORDER}" = "x"; then
	setenv BOOT_ORDER A B
fi
if test "x${BOOT_A_LEFT}" = "x"; then
	setenv BOOT_A_LEFT 3
fi
if test "x${BOOT_B_LEFT}" = "x"; then
	setenv BOOT_B_LEFT 3
fi

setenv chosen
for candidate in ${BOOT_ORDER}; do
	if test "x${chosen}" = "x"; then
		if test "${candidate}" = "A"; then
			if test ${BOOT_A_LEFT} -gt 0; then
				setexpr BOOT_A_LEFT ${BOOT_A_LEFT} - 1
				setenv chosen A
				setenv partition 2
			fi
		elif test "${candidate}" = "B"; then
			if test ${BOOT_B_LEFT} -gt 0; then
				setexpr BOOT_B_LEFT ${BOOT_B_LEFT} - 1
				setenv chosen B
				setenv partition 3
			fi
		fi
	fi
done

if test "x${chosen}" = "x"; then
	setenv BOOT_A_LEFT 3
	setenv BOOT_B_LEFT 3
	saveenv
	reset
fi
saveenv
if load mmc 0:${partition} ${kernel_addr_r} Image; then
	setenv bootargs "root=/dev/mmcblk0p${partition} rauc.slot=${chosen}"
	booti ${kernel_addr_r}
fi
reset
