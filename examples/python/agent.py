#!/usr/bin/python3
"""An update agent in Python.

    agent.py update COMPONENT MANIFEST IMAGE [--reboot]     MANIFEST is - for a component that takes bundles
    agent.py accept
    agent.py reject

It takes Jeepney (Debian: python3-jeepney): that passes descriptors, waits without a time-out unless told otherwise, and hands over the whole body of an error,
of which dbus-python and Gio keep less. It is pure Python, and blocking code reads from top to bottom.
"""
import os
import sys

from jeepney import DBusAddress, DBusErrorResponse, Properties, new_method_call
from jeepney.io.blocking import open_dbus_connection
from jeepney.wrappers import unwrap_msg

BUS = 'org.fwuab.FirmwareUpdate1'
MANAGER = DBusAddress('/org/fwuab/FirmwareUpdate1', BUS, BUS + '.Manager')
READY, WRITING, CANDIDATE, STAGED, FAILED, TRIAL, REJECTED, UPDATED = range(8)
SUCCESS_REBOOT = 1


class Agent:
    def __init__(self, bus):
        self.bus = bus

    def call(self, target, method, signature=None, *arguments):
        return unwrap_msg(self.bus.send_and_get_reply(new_method_call(target, method, signature, arguments)))

    def get(self, target, name):
        (_, value), = unwrap_msg(self.bus.send_and_get_reply(Properties(target).get(name)))
        return value

    def clean(self, component, name):
        print(f'{name}: cleaning:', *self.get(component, 'Reason'))
        self.call(component, 'Clean', 'a{sv}', {})

    def find(self, wanted):
        """Cleans what earlier updates left behind, in every component, as they are installed as a whole; returns the one that is wanted."""
        found = None
        listed, = self.call(MANAGER, 'ListComponents')
        for _, name, path in listed:
            component = DBusAddress(path, BUS, BUS + '.Component')
            if self.get(component, 'State') in (FAILED, UPDATED):
                self.clean(component, name)
            if name == wanted:
                found = component
        if found is None:
            sys.exit(f'this device has no component {wanted}')
        return found

    def ours(self, component, envelope):
        """The image in preparation was started with this manifest: an envelope has the digest of its manifest in it."""
        digest = self.get(component, 'ManifestDigest').partition(':')[2]
        return digest != '' and bytes.fromhex(digest) in envelope

    def transfer(self, component, name, image, offset):
        image.seek(offset)
        if offset != os.fstat(image.fileno()).st_size:
            self.call(component, 'WriteFile', 'thta{sv}', offset, image, 0, {})
        print(f'{name}: verifying')
        self.call(component, 'Finish', 'a{sv}', {})

    def reboot_needed(self, reboot):
        print('a reboot is needed')
        if reboot:
            self.call(MANAGER, 'RequestReboot', 'a{sv}', {})

    def update(self, name, manifest_file, image_file, reboot):
        # Unbuffered, so that seek moves the descriptor itself.
        with open(image_file, 'rb', buffering=0) as image:
            if manifest_file == '-':
                manifest, envelope = b'', os.pread(image.fileno(), 65536, 0)
            else:
                with open(manifest_file, 'rb') as file:
                    manifest = envelope = file.read()
            component = self.find(name)
            state = self.get(component, 'State')
            if state in (STAGED, REJECTED):  # nothing else can be done before
                self.reboot_needed(reboot)
                return 0 if reboot else 1
            if state == TRIAL:
                sys.exit(f'{name} is on trial: accept or reject it first')
            if state in (WRITING, CANDIDATE) and not self.ours(component, envelope):
                print(f'{name}: cancelling another update')
                self.call(component, 'Cancel')
                self.clean(component, name)
                state = READY
            if state == READY:
                print(f'{name}: starting')
                self.call(component, 'Start', 'aya{sv}', manifest, {})
                self.transfer(component, name, image, 0)
            elif state == WRITING:
                written = self.get(component, 'Written')
                print(f'{name}: continuing at {written}')
                self.transfer(component, name, image, written)
        print('installing')
        status, = self.call(MANAGER, 'Install', 'a{sv}', {})
        if status == SUCCESS_REBOOT:
            self.reboot_needed(reboot)
        return 0

    def accept(self):
        self.call(MANAGER, 'Accept', 'a{sv}', {})
        return 0

    def reject(self):
        status, = self.call(MANAGER, 'Reject', 'ia{sv}', 0, {})
        if status == SUCCESS_REBOOT:
            self.reboot_needed(False)
        return 0


def main(arguments):
    sys.stdout.reconfigure(line_buffering=True)
    try:
        with open_dbus_connection('SYSTEM', enable_fds=True) as bus:
            agent = Agent(bus)
            match arguments:
                case ['update', name, manifest, image]:
                    return agent.update(name, manifest, image, False)
                case ['update', name, manifest, image, '--reboot']:
                    return agent.update(name, manifest, image, True)
                case ['accept']:
                    return agent.accept()
                case ['reject']:
                    return agent.reject()
        print(f'usage: {sys.argv[0]} update COMPONENT MANIFEST IMAGE [--reboot] | accept | reject', file=sys.stderr)
        return 2
    except DBusErrorResponse as e:
        message = e.data[0] if e.data else ''
        details = e.data[1] if len(e.data) > 1 else {}  # an error of the bus itself has none
        _, reason = details.get('reason', ('s', ''))
        print(f'{e.name}: {message} ({reason})', file=sys.stderr)
    except OSError as e:
        print(e, file=sys.stderr)
    return 1


sys.exit(main(sys.argv[1:]))
