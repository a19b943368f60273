"""Real nova or cinder, run with their own Python: `.venv-openstack/bin/python openstack_peer.py nova|cinder capture|drive [URL]`.

capture   prints the objects that tests/compat/golden keeps, as their own serializer writes them
drive     calls and casts with the project's own rpcapi, and prints one JSON line for each answer

One project for each process: both register the same options. Nothing here touches a database.
"""

import json
import sys
import warnings
from datetime import UTC, datetime
from importlib.metadata import version

warnings.simplefilter("ignore")

import oslo_messaging  # noqa: E402  # its import warns of eventlet

NOW = datetime(2026, 11, 23, 3, 12, 6, 123456, tzinfo=UTC)
SERVER, VOLUME, ATTACHMENT, MAPPING, SERVICE, TYPE = (f"{digit * 8}-1111-4111-8111-{digit * 12}" for digit in "abcdef")


def say(found):
    print(json.dumps(found), flush=True)


def tried(work):
    try:
        return work()
    except Exception as exc:  # noqa: BLE001  # whatever comes is what the test wants to see
        return {"raised": [f"{cls.__module__}.{cls.__name__}" for cls in type(exc).__mro__], "said": str(exc).split("\n", 1)[0]}


def read(found, *names):
    """What the real object says of itself, field by field."""
    values = {name: getattr(found, name) for name in names}
    shown = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
    return {"class": f"{type(found).__module__}.{type(found).__name__}", "version": found.VERSION, **shown}


def in_order(found):
    """`changes` are written in the order of a set."""
    if isinstance(found, list):
        return [in_order(each) for each in found]
    if not isinstance(found, dict):
        return found
    return {key: sorted(value) if key.endswith(".changes") else in_order(value) for key, value in found.items()}


def capture(project, namespace, serializer, ctxt, objects):
    names = [project, "oslo.versionedobjects"]
    header = {
        "from": ", ".join(f"{name} {version(name)}" for name in names),
        "by": f"{type(serializer).__module__}.{type(serializer).__name__}.serialize_entity, changes sorted",
        "command": f".venv-openstack/bin/python tests/compat/openstack_peer.py {project} capture > tests/compat/golden/{project}.json",
    }
    found = {name: in_order(serializer.serialize_entity(ctxt, each)) for name, each in objects.items()}
    print(json.dumps({"captured": header, "namespace": namespace, "objects": found}, indent=1))


def on_the_bus(conf, rpc, url, control_exchange):
    conf([], default_config_files=[])
    conf.register_opts(oslo_messaging.transport._transport_opts)
    conf.set_override("transport_url", url)
    oslo_messaging.set_transport_defaults(control_exchange)
    rpc.init(conf)


class Nova:
    def __init__(self):
        import nova.conf
        from nova import context, objects

        self.conf = nova.conf.CONF
        self.conf([], default_config_files=[])
        objects.register_all()
        self.ctxt = context.RequestContext("u1", "p1", request_id="req-11111111-1111-4111-8111-111111111111")
        self.objects = objects

    def instance(self):
        objects = self.objects
        flavor = objects.Flavor(
            id=2, name="m1.small", memory_mb=2048, vcpus=1, root_gb=20, ephemeral_gb=0, flavorid="2", swap=0, rxtx_factor=1.0,
            vcpu_weight=None, disabled=False, is_public=True, extra_specs={}, description=None, created_at=NOW, updated_at=None,
        )  # fmt: skip
        fault = objects.InstanceFault(
            id=1,
            instance_uuid=SERVER,
            code=500,
            message="No valid host",
            details=None,
            host="cmp1",
            created_at=NOW,
            updated_at=None,
        )
        return objects.Instance(
            self.ctxt, id=7, uuid=SERVER, user_id="u1", project_id="p1", image_ref="", hostname="vm", display_name="vm",
            display_description=None, vm_state="active", task_state=None, power_state=1, memory_mb=2048, vcpus=1, root_gb=20,
            ephemeral_gb=0, host="cmp1", node="cmp1.example.org", compute_id=3, instance_type_id=2, launched_on="cmp1",
            root_device_name="/dev/vda", availability_zone="nova", created_at=NOW, updated_at=NOW, launched_at=NOW,
            terminated_at=None, deleted=False, deleted_at=None, locked=False, metadata={"a": "b"}, system_metadata={"c": None},
            config_drive="", hidden=False, flavor=flavor, old_flavor=None, new_flavor=None, fault=fault,
        )  # fmt: skip

    def young_instance(self):
        """As nova's API casts it before a host has seen it: what is not known yet is NULL or not set."""
        return self.objects.Instance(
            self.ctxt, uuid=SERVER, display_name="vm", vm_state="building", task_state="scheduling", power_state=None, host=None,
            memory_mb=None, vcpus=None, root_device_name=None, launched_at=None,
        )  # fmt: skip

    def mapping(self):
        found = self.objects.BlockDeviceMapping(
            self.ctxt, id=5, uuid=MAPPING, instance_uuid=SERVER, source_type="volume", destination_type="volume",
            guest_format=None, device_type="disk", disk_bus="virtio", boot_index=None, device_name="/dev/vdb",
            delete_on_termination=False, snapshot_id=None, volume_id=VOLUME, volume_size=1, image_id=None, no_device=False,
            connection_info=None, tag=None, attachment_id=ATTACHMENT, volume_type=None, encrypted=False, created_at=NOW,
            updated_at=None, deleted=False, deleted_at=None,
        )  # fmt: skip
        found.obj_reset_changes()
        return found

    def mappings(self):
        return self.objects.BlockDeviceMappingList(self.ctxt, objects=[self.mapping()])

    def capture(self):
        from nova.objects.base import NovaObjectSerializer

        found = {
            "Instance": self.instance(),
            "Instance, young": self.young_instance(),
            "InstanceList": self.objects.InstanceList(self.ctxt, objects=[self.instance()]),
            "BlockDeviceMapping": self.mapping(),
            "BlockDeviceMappingList": self.mappings(),
        }
        capture("nova", "nova", NovaObjectSerializer(), self.ctxt, found)

    def drive(self, url):
        from nova import rpc
        from nova.compute.rpcapi import ComputeAPI
        from nova.objects.base import NovaObjectSerializer

        on_the_bus(self.conf, rpc, url, "nova")
        compute, ctxt, instance = ComputeAPI(), self.ctxt, self.instance()
        asked = {"disk_bus": "virtio", "device_type": "disk", "tag": None, "multiattach": False}
        mapping = compute.reserve_block_device_name(ctxt, instance, None, VOLUME, **asked)
        say(read(mapping, "uuid", "instance_uuid", "volume_id", "device_name", "attachment_id", "boot_index", "created_at"))
        say(tried(lambda: compute.reserve_block_device_name(ctxt, instance, "/dev/vda", VOLUME, **asked)))
        compute.attach_volume(ctxt, instance, mapping)
        compute.detach_volume(ctxt, instance, VOLUME, attachment_id=ATTACHMENT)
        compute.terminate_instance(ctxt, instance, self.mappings())
        target = oslo_messaging.Target(topic="nova-api", version="1.0")
        api = rpc.get_client(target, serializer=NovaObjectSerializer())
        found = api.call(ctxt, "get", server="vm")
        say(read(found, "uuid", "vm_state", "task_state", "power_state", "host", "root_device_name", "launched_at"))
        say(read(found.flavor, "name", "memory_mb", "vcpus", "root_gb"))
        say(read(found.fault, "code", "message", "host", "created_at"))
        say([sorted(found.obj_what_changed()), [each.uuid for each in api.call(ctxt, "get_all").objects]])
        rpc.cleanup()


class Cinder:
    def __init__(self):
        from cinder import context, objects
        from cinder.common import config

        self.conf = config.CONF
        self.conf([], default_config_files=[])
        objects.register_all()
        self.ctxt = context.RequestContext("u1", "p1", request_id="req-22222222-2222-4222-8222-222222222222")
        self.objects = objects

    def attachment(self):
        return self.objects.VolumeAttachment(
            self.ctxt, id=ATTACHMENT, volume_id=VOLUME, instance_uuid=SERVER, attached_host="cmp1", mountpoint="/dev/vdb",
            attach_time=NOW, detach_time=None, attach_mode="rw", attach_status="attached", connection_info=None,
            connector={"host": "cmp1", "multipath": False}, created_at=NOW, updated_at=None, deleted=False, deleted_at=None,
        )  # fmt: skip

    def volume(self):
        objects = self.objects
        kind = objects.VolumeType(self.ctxt, id=TYPE, name="iscsi", description=None, is_public=True, extra_specs={})
        found = objects.Volume(
            self.ctxt, id=VOLUME, _name_id=None, ec2_id=None, user_id="u1", project_id="p1", use_quota=True, snapshot_id=None,
            cluster_name=None, host="host1@tgt#pool", size=1, availability_zone="nova", status="in-use",
            attach_status="attached", migration_status=None, scheduled_at=NOW, launched_at=NOW, terminated_at=None,
            display_name="data", display_description="of the vm", provider_id=None, provider_location="127.0.0.1:3260,1 iqn 1",
            provider_auth=None, provider_geometry=None, volume_type_id=TYPE, source_volid=None, encryption_key_id=None,
            deleted=False, bootable=False, multiattach=False, metadata={}, admin_metadata={"readonly": "False"},
            service_uuid=SERVICE, shared_targets=False, created_at=NOW, updated_at=NOW, deleted_at=None, volume_type=kind,
            volume_attachment=objects.VolumeAttachmentList(self.ctxt, objects=[self.attachment()]),
        )  # fmt: skip
        found.obj_reset_changes()
        return found

    def young_volume(self):
        """As cinder's API sends it to the scheduler."""
        return self.objects.Volume(
            self.ctxt, id=VOLUME, size=1, status="creating", attach_status="detached", host=None, display_name=None,
            multiattach=None, volume_type=None, volume_attachment=None,
        )  # fmt: skip

    def capture(self):
        from cinder.objects.base import CinderObjectSerializer

        found = {
            "Volume": self.volume(),
            "Volume, young": self.young_volume(),
            "VolumeList": self.objects.VolumeList(self.ctxt, objects=[self.volume()]),
            "VolumeAttachment": self.attachment(),
            "VolumeAttachmentList": self.objects.VolumeAttachmentList(self.ctxt, objects=[self.attachment()]),
        }
        capture("cinder", "cinder", CinderObjectSerializer(), self.ctxt, found)

    def drive(self, url):
        from cinder import rpc
        from cinder.objects import base
        from cinder.volume.rpcapi import VolumeAPI

        on_the_bus(self.conf, rpc, url, "openstack")
        # The versions that every service runs, which cinder looks up in its database.
        rpc.LAST_RPC_VERSIONS["cinder-volume"] = VolumeAPI.RPC_API_VERSION
        rpc.LAST_OBJ_VERSIONS["cinder-volume"] = base.OBJ_VERSIONS.get_current()
        self.objects.Volume.create_worker = lambda volume: None  # a row in `workers`
        volumes, ctxt, volume = VolumeAPI(), self.ctxt, self.volume()
        connector = {"host": "cmp1", "initiator": "iqn.1994-05.com.redhat:1", "multipath": False}
        say(volumes.initialize_connection(ctxt, volume, connector))
        found = volumes.attach_volume(ctxt, volume, SERVER, "cmp1", "/dev/vdb", "rw")
        say(read(found, "id", "volume_id", "instance_uuid", "attach_status", "attach_mode", "attach_time", "detach_time"))
        say(tried(lambda: volumes.terminate_connection(ctxt, volume, connector, force=True)))
        say(volumes.detach_volume(ctxt, volume, ATTACHMENT))
        spec = self.objects.RequestSpec(volume_id=VOLUME)
        volumes.create_volume(ctxt, volume, request_spec=spec, filter_properties={"retry": {}})
        volumes.delete_volume(ctxt, volume, cascade=True)
        volumes.publish_service_capabilities(ctxt)
        target = oslo_messaging.Target(topic="cinder-api", version="1.0")
        api = rpc.get_client(target, serializer=base.CinderObjectSerializer())
        found = api.call(ctxt, "get", volume_id="data")
        say(read(found, "id", "size", "status", "host", "display_name", "created_at", "launched_at"))
        say([found.volume_type.name, [each.mountpoint for each in found.volume_attachment.objects]])
        say([sorted(found.obj_what_changed()), [each.id for each in api.call(ctxt, "get_all").objects]])
        rpc.cleanup()


PROJECTS = {"nova": Nova, "cinder": Cinder}

if __name__ == "__main__":
    getattr(PROJECTS[sys.argv[1]](), sys.argv[2])(*sys.argv[3:])
