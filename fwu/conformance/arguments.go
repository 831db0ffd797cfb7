package conformance

import "strings"

// argument is a row of the table of argument classes, for one component. It holds in all eight variants unless only says otherwise.
type argument struct {
	name   string
	modes  string // manifest modes: d, b, n
	only   string // variants: words of Variant.String that all must apply; empty: all
	script string
	choice choice
}

// argumentGroup is a group of rows that rest on the same section of the specification.
type argumentGroup struct {
	section string
	rows    []argument
}

// argumentGroups is the table of argument classes.
func argumentGroups(p Profile) []argumentGroup {
	lostTrial := "start; send; install = SUCCESS_REBOOT STAGED; reboot = SUCCESS TRIAL'; reboot; cleaned; deliver again; "
	return []argumentGroup{
		{"5.5.5 psa_fwu_query: DOES_NOT_EXIST", []argument{
			{"query of no component", "dbn", "", "unknown-query = DOES_NOT_EXIST READY", ""},
		}},
		{"5.6.1 psa_fwu_start, manifest: absent where expected, given where not (INVALID_ARGUMENT)", []argument{
			{"manifest expected and given", "d", "", "deliver; start = SUCCESS WRITING", ""},
			{"manifest expected, nil", "d", "", "start-bare = INVALID_ARGUMENT READY", ""},
			{"manifest expected, empty", "d", "", "start-empty = INVALID_ARGUMENT READY", ""},
			{"manifest not expected, nil", "bn", "", "deliver; start-bare = SUCCESS WRITING", ""},
			{"manifest not expected, empty", "bn", "", "deliver; start-empty = SUCCESS WRITING", ""},
			{"manifest not expected, given", "bn", "", "deliver; start-with-manifest = INVALID_ARGUMENT READY", ""},
		}},
		{"5.6.1 psa_fwu_start and 4.3.1: detached manifest; INVALID_SIGNATURE, INVALID_ARGUMENT if it is no valid manifest, NOT_PERMITTED if it is against policy", []argument{
			{"detached, bad signature", "d", "", "deliver bad-signature; start = INVALID_SIGNATURE READY", ""},
			{"detached, wrong key", "d", "", "deliver wrong-key; start = INVALID_SIGNATURE READY", ""},
			{"detached, garbage", "d", "", "deliver garbage; start = INVALID_ARGUMENT READY", ""},
			{"detached, truncated", "d", "", "deliver truncated; start = INVALID_ARGUMENT READY", ""},
			{"detached, wrong vendor", "d", "", "deliver wrong-vendor; start = NOT_PERMITTED READY", ""},
			{"detached, wrong class", "d", "", "deliver wrong-class; start = NOT_PERMITTED READY", ""},
			{"detached, wrong component", "d", "", "deliver wrong-component; start = NOT_PERMITTED READY", ""},
			{"detached, lower sequence number", "d", "", "deliver seq-1; start = NOT_PERMITTED READY", ""},
			{"detached, equal sequence number", "d", "", "deliver; start = SUCCESS WRITING; send = SUCCESS CANDIDATE", ""},
			{"detached, after a refusal a good one", "d", "", "deliver bad-signature; start = INVALID_SIGNATURE READY; deliver; start = SUCCESS WRITING; send = SUCCESS CANDIDATE", ""},
		}},
		{"4.2.4, 5.6.1 psa_fwu_write and psa_fwu_finish, bundled manifest: the same errors, then FAILED", []argument{
			{"bundled, good", "b", "", "deliver; start-bare = SUCCESS WRITING; send = SUCCESS CANDIDATE", ""},
			{"bundled, bad signature", "b", "", "deliver bad-signature; start; send = INVALID_SIGNATURE FAILED!s", ""},
			{"bundled, wrong key", "b", "", "deliver wrong-key; start; send = INVALID_SIGNATURE FAILED!s", ""},
			{"bundled, garbage", "b", "", "deliver garbage; start; send = INVALID_ARGUMENT FAILED!s", ""},
			{"bundled, truncated", "b", "", "deliver truncated; start; send = INVALID_ARGUMENT FAILED!s", ""},
			{"bundled, wrong vendor", "b", "", "deliver wrong-vendor; start; send = NOT_PERMITTED FAILED!s", ""},
			{"bundled, wrong class", "b", "", "deliver wrong-class; start; send = NOT_PERMITTED FAILED!s", ""},
			{"bundled, wrong component", "b", "", "deliver wrong-component; start; send = NOT_PERMITTED FAILED!s", ""},
			{"bundled, lower sequence number", "b", "", "deliver seq-1; start; send = NOT_PERMITTED FAILED!s", ""},
			{"bundled, failed, then a good one", "b", "", "deliver garbage; start; send = INVALID_ARGUMENT FAILED!s; clean = SUCCESS READY; deliver; start; send = SUCCESS CANDIDATE", ""},
		}},
		{"5.6.1 PSA_FWU_LOG2_WRITE_ALIGN, psa_fwu_write: image_offset is no multiple of the alignment, or the region does not lie inside the storage (INVALID_ARGUMENT)", []argument{
			{"offset 1", "dbn", "", "deliver; start; write-block 0; write 1 unit = INVALID_ARGUMENT WRITING", ""},
			{"offset half a unit", "dbn", "", "deliver; start; write-block 0; write half half = INVALID_ARGUMENT WRITING", ""},
			{"offset a unit and one", "dbn", "", "deliver; start; write-block 0; write unit+1 1 = INVALID_ARGUMENT WRITING", ""},
			{"offset -1", "dbn", "", "deliver; start; write -1 1 = INVALID_ARGUMENT WRITING", ""},
			{"offset minus a unit", "dbn", "", "deliver; start; write -unit unit = INVALID_ARGUMENT WRITING", ""},
			{"offset minus a unit, block over 0", "dbn", "", "deliver; start; write -unit unit+unit = INVALID_ARGUMENT WRITING", ""},
			{"offset lowest", "dbn", "", "deliver; start; write -9223372036854775807 unit = INVALID_ARGUMENT WRITING", ""},
			{"offset and size overflow", "dbn", "", "deliver; start; write overflow unit = INVALID_ARGUMENT WRITING", ""},
			{"offset and size overflow by a byte", "dbn", "", "deliver; start; write overflow unit+1 = INVALID_ARGUMENT WRITING", ""},
			{"offset far", "dbn", "", "deliver; start; write far unit = INVALID_ARGUMENT WRITING", ""},
			{"offset the size of the location", "dbn", "", "deliver; start; write slot unit = INVALID_ARGUMENT WRITING", ""},
			{"offset the size of the location, one byte", "dbn", "", "deliver; start; write slot 1 = INVALID_ARGUMENT WRITING", ""},
			{"offset the size of the location less a unit, two units", "dbn", "", "deliver; start; write tail unit+unit = INVALID_ARGUMENT WRITING", ""},
			{"offset past the size that the manifest states", "d", "", "deliver; start; write end 1 = INVALID_ARGUMENT WRITING", ""},
			{"block across the size that the manifest states", "d", "", "deliver; start; write last rest+1 = INVALID_ARGUMENT WRITING", ""},
			{"block to the size that the manifest states", "d", "", "deliver; start; write last rest = SUCCESS WRITING", ""},
			{"after a refusal it goes on", "dn", "", "deliver; start; write-block 0; write 1 unit = INVALID_ARGUMENT WRITING; write-block 1; write-block 2; finish = SUCCESS CANDIDATE", ""},
			{"no component", "dbn", "", "deliver; start; unknown-write = DOES_NOT_EXIST WRITING", ""},
		}},
		{"5.6.1 psa_fwu_write: block_size is 0, or greater than PSA_FWU_MAX_WRITE_SIZE (INVALID_ARGUMENT)", []argument{
			{"size 0", "dbn", "", "deliver; start; write 0 0 = INVALID_ARGUMENT WRITING", ""},
			{"size 0 later", "dbn", "", "deliver; start; write-rest; write next 0 = INVALID_ARGUMENT WRITING", ""},
			{"size 1", "dbn", "", "deliver; start; write 0 1 = SUCCESS WRITING", ""},
			{"size half a unit", "dbn", "", "deliver; start; write 0 half = SUCCESS WRITING", ""},
			{"size greater than the maximum, and than the location", "dbn", "", "deliver; start; write 0 max+1 = INVALID_ARGUMENT WRITING", ""},
		}},
		{"4.2.3, 5.6.1 psa_fwu_write: blocks may come in any order and more than once; a short block is padded", []argument{
			{"in reverse order", "dn", "", "deliver; start; write-block 2; write-block 1; write-block 0 = SUCCESS WRITING; finish = SUCCESS CANDIDATE", ""},
			{"one block twice", "dn", "", "deliver; start; write-block 0; write-block 0; write-block 1; write-block 2 = SUCCESS WRITING; finish = SUCCESS CANDIDATE", ""},
			{"the last block twice", "dn", "", "deliver; start; write-rest; write-block 2 = SUCCESS WRITING; finish = SUCCESS CANDIDATE", ""},
			{"another content, then the right one", "dn", "reboot", "deliver; start; write-wrong 0; write-rest; write-block 0 = SUCCESS WRITING; finish = SUCCESS CANDIDATE; install = SUCCESS_REBOOT STAGED", ""},
			{"another content, then the right one", "dn", "no-reboot trial", "deliver; start; write-wrong 0; write-rest; write-block 0 = SUCCESS WRITING; finish = SUCCESS CANDIDATE; install = SUCCESS TRIAL'", ""},
			{"a short block in the middle, then the whole", "dn", "", "deliver; start; write 0 half = SUCCESS WRITING; write-block 1; write-block 0; write-block 2; finish = SUCCESS CANDIDATE", ""},
			{"bundled, with a gap", "b", "", "deliver; start; write-block 0; write unit+unit unit = INVALID_ARGUMENT WRITING", choiceContiguous},
			{"bundled, the first block twice: refused, unless nothing is durable yet", "b", "", "deliver; start; write-block 0; write-block 0 = SUCCESS|INVALID_ARGUMENT WRITING; resume; finish = SUCCESS CANDIDATE", choiceContiguous + ", " + choiceProgress},
			{"bundled, not from the beginning", "b", "", "deliver; start; write unit unit = INVALID_ARGUMENT WRITING", choiceContiguous},
			{"bundled, after a refusal it goes on", "b", "", "deliver; start; write next unit; write unit+unit unit = INVALID_ARGUMENT WRITING; send = SUCCESS CANDIDATE", choiceContiguous},
		}},
		{"4.2.4, 4.3.2, 5.6.1 psa_fwu_finish: INVALID_SIGNATURE if an integrity check fails, INVALID_ARGUMENT if the image is not valid; then FAILED", []argument{
			{"nothing written, manifest detached", "d", "", "deliver; start; finish = INVALID_ARGUMENT FAILED!s", ""},
			{"nothing written, manifest bundled", "b", "", "deliver; start; finish = INVALID_ARGUMENT FAILED!s", ""},
			{"nothing written, no manifest", "n", "", "deliver; start; finish = INVALID_ARGUMENT WRITING; send = SUCCESS CANDIDATE", ""},
			{"the last block is missing", "db", "", "deliver; start; write-block 0; write-block 1; finish = INVALID_ARGUMENT FAILED!s", ""},
			{"the last byte is missing", "d", "", "deliver; start; write-block 0; write-block 1; write last rest+-1; finish = INVALID_ARGUMENT FAILED!s", ""},
			{"a block in the middle is missing", "d", "", "deliver; start; write-block 0; write-block 2; finish = INVALID_ARGUMENT|INVALID_SIGNATURE FAILED!s", ""},
			{"the first block is missing", "d", "", "deliver; start; write-block 1; write-block 2; finish = INVALID_ARGUMENT|INVALID_SIGNATURE FAILED!s", ""},
			{"one bit of the first block is wrong", "d", "", "deliver; start; write-wrong 0; write-block 1; write-block 2; finish = INVALID_SIGNATURE FAILED!s", ""},
			{"one bit of the last block is wrong", "d", "", "deliver; start; write-block 0; write-block 1; write-wrong 2; finish = INVALID_SIGNATURE FAILED!s", ""},
			{"a good block was overwritten by a wrong one", "d", "", "deliver; start; write-rest; write-wrong 1; finish = INVALID_SIGNATURE FAILED!s", ""},
			{"the digest in the manifest is another", "d", "", "deliver wrong-digest; start = SUCCESS WRITING; send = INVALID_SIGNATURE FAILED!s", ""},
			{"the digest in the bundled manifest is another", "b", "", "deliver wrong-digest; start; send = INVALID_SIGNATURE FAILED!s", ""},
			{"the size in the manifest is another", "d", "", "deliver wrong-size; start = SUCCESS WRITING; send = INVALID_ARGUMENT FAILED!s", ""},
			{"the size in the bundled manifest is another", "b", "", "deliver wrong-size; start; send = INVALID_ARGUMENT FAILED!s", ""},
			{"after a failure the next update is complete", "d", "", "deliver wrong-digest; start; send = INVALID_SIGNATURE FAILED!s; clean = SUCCESS READY; deliver; start; send = SUCCESS CANDIDATE", ""},
			{"any content, no manifest", "n", "", "deliver; start; write-rest; finish = SUCCESS CANDIDATE", ""},
			{"one byte, no manifest", "n", "", "deliver; start; write 0 1; finish = SUCCESS", ""},
		}},
		{"5.5.5 version, location: those of the active image; 5.6.1 psa_fwu_clean", []argument{
			{"an update, and another one", "dbn", "reboot trial non-volatile", "deliver; start; send; install = SUCCESS_REBOOT STAGED; reboot = SUCCESS TRIAL'; accept = SUCCESS UPDATED'; clean = SUCCESS READY'; settle; deliver; start; send; install; reboot = SUCCESS TRIAL'; accept = SUCCESS UPDATED'", ""},
			{"an update, and another one", "dbn", "reboot no-trial non-volatile", "deliver; start; send; install = SUCCESS_REBOOT STAGED; reboot = SUCCESS UPDATED'; cleaned = SUCCESS READY'; settle; deliver; start; send; install; reboot = SUCCESS UPDATED'", ""},
			{"an update, and another one", "dbn", "no-reboot trial", "deliver; start; send; install = SUCCESS TRIAL'; accept = SUCCESS UPDATED'; clean = SUCCESS READY'; settle; deliver; start; send; install = SUCCESS TRIAL'", ""},
			{"an update, and another one", "dbn", "no-reboot no-trial", "deliver; start; send; install = SUCCESS UPDATED'; clean = SUCCESS READY'; settle; deliver; start; send; install = SUCCESS UPDATED'", ""},
			{"a rejected one, and another one", "dbn", "reboot trial non-volatile", "deliver; start; send; install; reboot; reject = SUCCESS_REBOOT REJECTED'!e; reboot = SUCCESS FAILED!e; cleaned = SUCCESS READY; deliver; start; send; install; reboot = SUCCESS TRIAL'", ""},
			{"a rejected one, and another one", "dbn", "no-reboot trial", "deliver; start; send; install; reject = SUCCESS FAILED!e; clean = SUCCESS READY; deliver; start; send; install = SUCCESS TRIAL'", ""},
			{"one that could not be installed, and another one", "dbn", "reboot non-volatile no-trial", "deliver; start; send; install; reboot-failing = SUCCESS FAILED!g; cleaned = SUCCESS READY; deliver; start; send; install; reboot = SUCCESS UPDATED'", ""},
		}},
		{"5.6.2 psa_fwu_reject: the error is recorded", []argument{
			{"reject in STAGED with 0", "dn", "reboot", "deliver; start; send; install; reject=0 = SUCCESS FAILED!+0", ""},
			{"reject in STAGED with a positive number", "dn", "reboot", "deliver; start; send; install; reject=42 = SUCCESS FAILED!42", ""},
			{"reject in STAGED with the lowest number", "dn", "reboot", "deliver; start; send; install; reject=-2147483648 = SUCCESS FAILED!-2147483648", ""},
			{"reject in TRIAL with 0", "dn", "reboot trial", "deliver; start; send; install; reboot; reject=0 = SUCCESS_REBOOT REJECTED'!+0", ""},
			{"reject in TRIAL with a status code", "dn", "reboot trial non-volatile", "deliver; start; send; install; reboot; reject=-133 = SUCCESS_REBOOT REJECTED'!-133; reboot = SUCCESS FAILED!-133", ""},
			{"reject in TRIAL with a positive number", "dn", "no-reboot trial", "deliver; start; send; install; reject=2147483647 = SUCCESS FAILED!2147483647", ""},
			{"a rejected installation is not carried out by the next reboot", "d", "reboot non-volatile", "deliver; start; send; install; reject = SUCCESS FAILED!e; reboot = SUCCESS FAILED!e; reboot-failing = SUCCESS FAILED!e", ""},
		}},
		{"4.3.1, 5.6.1: rollback prevention. The lowest sequence number moves when an update is complete, not before", []argument{
			{"older than what was accepted", "d", "reboot trial", "deliver seq+1; start; send; install; reboot; accept; clean; settle; deliver seq-1; start = NOT_PERMITTED READY; deliver; start = SUCCESS WRITING", ""},
			{"older than what was accepted", "b", "reboot trial", "deliver seq+1; start; send; install; reboot; accept; clean; settle; deliver seq-1; start; send = NOT_PERMITTED FAILED!s", ""},
			{"older than what was installed", "d", "reboot no-trial non-volatile", "deliver seq+1; start; send; install; reboot = SUCCESS UPDATED'; cleaned; settle; deliver seq-1; start = NOT_PERMITTED READY", ""},
			{"older than what was installed", "d", "reboot no-trial volatile", "deliver seq+1; start; send; install; reboot = SUCCESS READY'; settle; deliver seq-1; start = NOT_PERMITTED READY", ""},
			{"older than what was accepted", "d", "no-reboot trial", "deliver seq+1; start; send; install; accept; clean; settle; deliver seq-1; start = NOT_PERMITTED READY", ""},
			{"older than what was installed", "d", "no-reboot no-trial", "deliver seq+1; start; send; install; clean; settle; deliver seq-1; start = NOT_PERMITTED READY", ""},
			{"as old as what is active, after a newer one was rejected", "d", "reboot trial non-volatile", "deliver seq+1; start; send; install; reboot; reject; reboot; cleaned; deliver; start = SUCCESS WRITING", ""},
			{"as old as what is active, after a newer one was rejected", "d", "no-reboot trial", "deliver seq+1; start; send; install; reject; clean; deliver; start = SUCCESS WRITING", ""},
			{"as old as what is active, after the trial of a newer one was lost", "d", "reboot trial volatile", "deliver seq+1; start; send; install; reboot; reboot = SUCCESS READY; deliver; start = SUCCESS WRITING", ""},
			{"as old as what is active, after a newer one was cancelled", "d", "", "deliver seq+1; start; send; cancel; clean; deliver; start = SUCCESS WRITING", ""},
		}},
		{"4.2.1 WRITING, CANDIDATE: what survives a reboot with non-volatile staging; 4.5: the transfer of the image can be resumed", []argument{
			{"the transfer is resumed after a reboot", "dn", "non-volatile", "deliver; start; write-block 0; write-block 1; reboot = SUCCESS WRITING; resume; finish = SUCCESS CANDIDATE", choiceWriting},
			{"the transfer of a bundle is resumed after a reboot", "b", "non-volatile", "deliver; start; write-block 0; write-block 1; reboot = SUCCESS WRITING; resume; finish = SUCCESS CANDIDATE", choiceWriting + ", " + choiceProgress},
			{"the transfer is resumed after a restart of the service", "dn", "", "deliver; start; write-block 0; service-restart = SUCCESS WRITING; resume; finish = SUCCESS CANDIDATE", ""},
			{"no manifest, with a gap after a restart of the service", "n", "", "deliver; start; service-restart = SUCCESS WRITING; write unit unit = INVALID_ARGUMENT WRITING; resume; finish = SUCCESS CANDIDATE", choiceGapless + ", " + choiceProgress},
			{"the transfer of a bundle is resumed after a restart of the service", "b", "", "deliver; start; write-block 0; service-restart = SUCCESS WRITING; resume; finish = SUCCESS CANDIDATE", choiceProgress},
			{"the whole transfer is repeated after a restart of the service", "dn", "", "deliver; start; write-rest; service-restart = SUCCESS WRITING; write-block 0; write-block 1; write-block 2; finish = SUCCESS CANDIDATE", ""},
			{"a candidate is installed after a reboot", "dbn", "reboot non-volatile", "deliver; start; send; reboot = SUCCESS CANDIDATE; install = SUCCESS_REBOOT STAGED", ""},
			{"a candidate is installed after a reboot", "dbn", "no-reboot non-volatile no-trial", "deliver; start; send; reboot = SUCCESS CANDIDATE; install = SUCCESS UPDATED'", ""},
			{"a candidate is installed after a reboot", "dbn", "no-reboot non-volatile trial", "deliver; start; send; reboot = SUCCESS CANDIDATE; install = SUCCESS TRIAL'", ""},
			{"a candidate is installed after a restart of the service", "dbn", "reboot", "deliver; start; send; service-restart = SUCCESS CANDIDATE; install = SUCCESS_REBOOT STAGED", ""},
			{"a trial without reboot is accepted after a reboot", "d", "no-reboot trial non-volatile", "deliver; start; send; install; reboot = SUCCESS TRIAL'; accept = SUCCESS UPDATED'", ""},
			{"a trial without reboot is rejected after a reboot", "d", "no-reboot trial non-volatile", "deliver; start; send; install; reboot = SUCCESS TRIAL'; reject = SUCCESS FAILED!e", ""},
			{"a request is no reboot", "d", "reboot", "deliver; start; send; install; request-reboot = SUCCESS STAGED; service-restart = SUCCESS STAGED", ""},
			{"an accepted update stays through any reboot", "d", "reboot trial non-volatile", "deliver; start; send; install; reboot; accept; reboot-failing = SUCCESS UPDATED'; cleaned = SUCCESS READY'; reboot = SUCCESS READY'", choiceUpdated},
		}},
		{"4.2.4: an installation that was interrupted by a boot past the bootloader can be begun again", []argument{
			{"install again after a bypassed boot", "dbn", "reboot trial non-volatile", "deliver; start; send; install; reboot-bypassed = SUCCESS CANDIDATE; install = SUCCESS_REBOOT STAGED; reboot = SUCCESS TRIAL'", choiceBypass},
			{"after a bypassed boot, a reboot installs nothing", "d", "reboot non-volatile", "deliver; start; send; install; reboot-bypassed = SUCCESS CANDIDATE; reboot = SUCCESS CANDIDATE", choiceBypass},
			{"rolled back after a bypassed boot", "d", "reboot trial non-volatile", "deliver; start; send; install; reboot; reboot-bypassed = SUCCESS REJECTED'!g; reboot = SUCCESS FAILED!g", choiceBypass},
			{"rolled back after a bypassed boot", "d", "reboot trial volatile", "deliver; start; send; install; reboot; reboot-bypassed = SUCCESS REJECTED'!g; reboot = SUCCESS READY", choiceBypass},
			{"reject survives a bypassed boot", "d", "reboot trial non-volatile", "deliver; start; send; install; reboot; reject; reboot-bypassed = SUCCESS REJECTED'!e; reboot = SUCCESS FAILED!e", choiceBypass},
		}},
		{"5.6.1 psa_fwu_start: update policy (NOT_PERMITTED); an image whose trial was lost too often is not tried again", []argument{
			{"a trial too many", "d", "reboot trial", "deliver; " + strings.Repeat(lostTrial, p.MaxTrials) + "start = NOT_PERMITTED READY; deliver; start = SUCCESS WRITING", choiceMaxTrials},
			{"a trial too many, bundled", "b", "reboot trial", "deliver; " + strings.Repeat(lostTrial, p.MaxTrials) + "start; send = NOT_PERMITTED FAILED!s", choiceMaxTrials},
		}},
		{"4.3.2, 5.6.2 psa_fwu_install: what the location holds no longer passes verification", []argument{
			{"tampered while CANDIDATE, over a reboot", "d", "non-volatile", "deliver; start; send = SUCCESS CANDIDATE; tamper; reboot = SUCCESS CANDIDATE; install = INVALID_SIGNATURE|INVALID_ARGUMENT|STORAGE_FAILURE FAILED!s", choiceTamper},
		}},
	}
}

// largeGroups is the table of argument classes that need a large location.
func largeGroups() []argumentGroup {
	return []argumentGroup{
		{"5.6.1 PSA_FWU_MAX_WRITE_SIZE, psa_fwu_write: block_size must not be greater; the region must lie inside the storage", []argument{
			{"size the maximum", "dbn", "", "deliver whole; start; write 0 max = SUCCESS WRITING", ""},
			{"size the maximum and one", "dbn", "", "deliver whole; start; write 0 max+1 = INVALID_ARGUMENT WRITING", ""},
			{"size the maximum and a unit", "dbn", "", "deliver whole; start; write 0 max+unit = INVALID_ARGUMENT WRITING", ""},
		}},
		{"5.5.5 max_size, 5.6.1: an image may be as large as max_size, and no larger", []argument{
			{"as large as the location", "dn", "reboot", "deliver whole; start; send = SUCCESS CANDIDATE; install = SUCCESS_REBOOT STAGED", ""},
			{"as large as the location, bundled", "b", "reboot", "deliver whole; start; send = SUCCESS CANDIDATE; install = SUCCESS_REBOOT STAGED", choiceContiguous},
			{"as large as the location", "dn", "no-reboot trial", "deliver whole; start; send = SUCCESS CANDIDATE; install = SUCCESS TRIAL'", ""},
			{"as large as the location, bundled", "b", "no-reboot trial", "deliver whole; start; send = SUCCESS CANDIDATE; install = SUCCESS TRIAL'", choiceContiguous},
			{"a byte larger", "d", "", "deliver too-large; start = INSUFFICIENT_STORAGE|INVALID_ARGUMENT|NOT_PERMITTED READY", ""},
			{"a byte larger, bundled", "b", "", "deliver too-large; start; send = INSUFFICIENT_STORAGE|INVALID_ARGUMENT|NOT_PERMITTED FAILED!s", choiceContiguous},
			{"a byte larger, no manifest", "n", "", "deliver too-large; start; write-rest = INVALID_ARGUMENT WRITING", ""},
		}},
	}
}
