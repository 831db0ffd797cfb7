# What U-Boot does before bootcmd where it counts boots in the environment, and what altbootcmd does on boards prepared for Mender, in words of our own.
setenv bootcmd 'load mmc 0:${part} ${kernel_addr_r} Image && setenv bootargs root=/dev/mmcblk0p${part} && booti ${kernel_addr_r}; reset'
setenv altbootcmd 'if test "${part}" = "2"; then setenv part 3; else setenv part 2; fi; setenv upgrade_available 0; saveenv; run bootcmd'

setenv count 1
if test "0${upgrade_available}" -gt 0; then
	setexpr count 0${bootcount} + 1
	setenv bootcount ${count}
	saveenv
fi
setenv bootcount ${count}
if test "0${upgrade_available}" -gt 0 && test "0${bootlimit}" -gt 0 && test ${count} -gt "0${bootlimit}"; then
	run altbootcmd
else
	run bootcmd
fi
