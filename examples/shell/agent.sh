#!/bin/sh
# An update agent in shell.
#
#	agent.sh update COMPONENT MANIFEST IMAGE [--reboot]	MANIFEST is - for a component that takes bundles
#	agent.sh accept
#	agent.sh reject
#
# It calls with busctl (systemd), and passes descriptors with gdbus (GLib), which busctl cannot. Of a D-Bus error busctl prints the message, gdbus the name, and
# neither the details. What made a component FAILED is in its property Reason.
set -eu

bus=org.fwuab.FirmwareUpdate1
manager=/org/fwuab/FirmwareUpdate1

call() { # PATH INTERFACE METHOD [SIGNATURE ARGUMENT...]
	object=$1 interface=$bus.$2
	shift 2
	busctl --system --timeout=infinity call "$bus" "$object" "$interface" "$@"
}

property() { # PATH NAME
	value=$(busctl --system get-property "$bus" "$1" "$bus.Component" "$2")
	printf '%s\n' "${value#* }" | tr -d '"' # without its type
}

clean() { # PATH NAME
	why=$(property "$1" Reason)
	echo "$2: cleaning: $why"
	call "$1" Component Clean 'a{sv}' 0
}

# ours: the image in preparation was started with this manifest. An envelope has the digest of its manifest in its first 64 KiB.
ours() { # PATH ENVELOPE
	digest=$(property "$1" ManifestDigest) || exit
	[ -n "$digest" ] || return 1
	head -c 65536 "$2" | od -An -v -tx1 | tr -d ' \n' | grep -q "${digest#*:}"
}

start() { # PATH MANIFEST
	object=$1
	if [ "$2" = - ]; then
		set --
	else
		bytes=$(od -An -v -tu1 "$2")
		# shellcheck disable=SC2086 # an argument for each byte
		set -- $bytes
	fi
	call "$object" Component Start 'aya{sv}' $# "$@" 0
}

transfer() { # PATH NAME IMAGE OFFSET
	size=$(wc -c <"$3")
	if [ "$4" -ne "$size" ]; then
		exec 3<"$3"
		dd bs=1 skip="$4" count=0 status=none <&3 # moves the descriptor there
		# The longest time-out of gdbus is one of 24 days.
		if ! gdbus call --system --timeout 2147483 --dest "$bus" --object-path "$1" --method "$bus.Component.WriteFile" "$4" 'handle 3' 0 '{}' >&2; then
			why=$(property "$1" Reason)
			echo "$2: $why" >&2
			exit 1
		fi
		exec 3<&-
	fi
	echo "$2: verifying"
	call "$1" Component Finish 'a{sv}' 0
}

reboot_needed() { # --reboot or nothing
	echo "a reboot is needed"
	if [ "$1" = --reboot ]; then
		call "$manager" Manager RequestReboot 'a{sv}' 0
	fi
}

update() { # NAME MANIFEST IMAGE [--reboot]
	name=$1 manifest=$2 image=$3 reboot=${4:-}
	envelope=$manifest
	[ "$manifest" != - ] || envelope=$image
	for file in "$envelope" "$image"; do
		[ -r "$file" ] || { echo "cannot read $file" >&2; exit 1; }
	done

	# What earlier updates left behind is cleaned in every component: they are installed as a whole. The reply is: a(yso) 2 0 "rootfs" "/org/..." 1 ...
	path=
	list=$(call "$manager" Manager ListComponents)
	# shellcheck disable=SC2046 # split into words; no name has a blank
	set -- $(printf '%s' "$list" | tr -d '"')
	shift 2
	while [ $# -gt 0 ]; do
		state=$(property "$3" State)
		case $state in
		4 | 7) clean "$3" "$2" ;; # FAILED, UPDATED
		esac
		[ "$2" != "$name" ] || path=$3
		shift 3
	done
	[ -n "$path" ] || { echo "this device has no component $name" >&2; exit 1; }

	state=$(property "$path" State)
	case $state in
	1 | 2) # WRITING, CANDIDATE
		if ! ours "$path" "$envelope"; then
			echo "$name: cancelling another update"
			call "$path" Component Cancel
			clean "$path" "$name"
			state=0
		fi
		;;
	3 | 6) # STAGED, REJECTED: nothing else can be done before
		reboot_needed "$reboot"
		[ -n "$reboot" ] || exit 1
		return
		;;
	5) # TRIAL
		echo "$name is on trial: accept or reject it first" >&2
		exit 1
		;;
	esac
	case $state in
	0) # READY
		echo "$name: starting"
		start "$path" "$manifest"
		transfer "$path" "$name" "$image" 0
		;;
	1)
		written=$(property "$path" Written)
		echo "$name: continuing at $written"
		transfer "$path" "$name" "$image" "$written"
		;;
	esac
	echo "installing"
	status=$(call "$manager" Manager Install 'a{sv}' 0)
	[ "$status" != 'i 1' ] || reboot_needed "$reboot"
}

case ${1:-} in
update)
	shift
	[ $# -eq 3 ] || { [ $# -eq 4 ] && [ "$4" = --reboot ]; } || { echo "usage: $0 update COMPONENT MANIFEST IMAGE [--reboot]" >&2; exit 2; }
	update "$@"
	;;
accept)
	status=$(call "$manager" Manager Accept 'a{sv}' 0)
	;;
reject)
	status=$(call "$manager" Manager Reject 'ia{sv}' 0 0)
	[ "$status" != 'i 1' ] || reboot_needed ''
	;;
*)
	echo "usage: $0 update COMPONENT MANIFEST IMAGE [--reboot] | accept | reject" >&2
	exit 2
	;;
esac
