// Package uboot selects the bank through the U-Boot environment, natively: it runs no fw_setenv.
//
// # Format
//
// An environment copy, as U-Boot lays it out (env_t in include/env_internal.h, env/common.c; tools/env/fw_env.c reads the same):
//
//	offset  size  content
//	0       4     CRC-32 (IEEE) of the data, in the byte order of the machine; little-endian here
//	4       1     flag, only where there are two copies; not covered by the CRC
//	4 or 5  rest  data: name=value, NUL, name=value, NUL, ..., and one more NUL; what follows it means nothing but counts for the CRC
//
// Of two copies with a good CRC the one with the larger flag is active; 0 is larger than 255; of two equal ones the first is active
// (env_check_redund in env/common.c). That is the counting scheme of files and block devices. NOR flash marks copies active or obsolete
// instead, and is refused here with every other MTD and UBI device.
//
// # Promise
//
// A commit is one write of one whole copy: the one that is not active, or is damaged. It is flushed, and read back from the medium.
// The other copy stays as it is, so that a cut at any point leaves the old or the new environment. Variables that are not ours, and their order,
// stay byte for byte. A single copy cannot promise that: a cut can leave none. It is used only where the configuration says so in as many words.
//
// An environment is never created from nothing: U-Boot does not add its built-in defaults to a saved environment, so one that holds our variables alone
// would not boot. Where no copy is valid, the base is a full default environment that the configuration names, or nothing is written.
//
// # Which variables
//
// A [Scheme] says how the variables and the selection belong together. The boot script of the scheme [OneShot] is share/uboot/fwu-ab.cmd.
package uboot
