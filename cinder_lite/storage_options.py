"""The options of single drivers in a backend's stanza, under cinder's names where cinder has them."""

from oslo_config import cfg


def storage_options() -> tuple[cfg.Opt, ...]:
    """Of drivers lvm, rbd and fake."""
    return (*_lvm_options(), *_clear_options(), *_rbd_options(), *_fake_options())


def _lvm_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.StrOpt("volume_group", default="cinder-volumes", help="Volume group of driver lvm."),
        cfg.StrOpt(
            "lvm_type",
            default="auto",
            choices=["default", "thin", "auto"],
            help="Logical volumes of driver lvm: default is thick. auto: thin where the group has its thin pool already or is empty.",
        ),
        cfg.StrOpt(
            "lvm_devices",
            default="device-mapper",
            choices=["device-mapper", "loop"],
            help="How driver lvm shows its volumes. loop is for trying it out on a kernel without device-mapper: thick volumes of one "
            "segment each, and snapshots that are copies.",
        ),
        cfg.StrOpt(
            "lvm_conf_file",
            default="",
            help="An lvm.conf for LVM's programs; its folder is their LVM_SYSTEM_DIR. Empty: the system's.",
        ),
    )


def _clear_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.StrOpt(
            "volume_clear",
            default="zero",
            choices=["zero", "none"],
            help="What happens to the bytes of a thick logical volume when it is deleted. none: the next volume may show them.",
        ),
        cfg.IntOpt("volume_clear_size", default=0, min=0, max=1024, help="MiB from the beginning that are cleared; 0: all."),
        cfg.StrOpt("volume_clear_ionice", default="", help="Options of ionice for the clearing, as -c3."),
    )


def _rbd_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.StrOpt("rbd_pool", default="rbd", help="Pool of driver rbd."),
        cfg.StrOpt("rbd_user", default="", help="Ceph's user without `client.`. Empty: admin, and hosts are told of no login."),
        cfg.StrOpt("rbd_ceph_conf", default="", help="Path of ceph.conf. Empty: Ceph's own search for it."),
        cfg.StrOpt("rbd_cluster_name", default="ceph", help="Name of the cluster."),
        cfg.StrOpt("rbd_secret_uuid", default="", help="libvirt's secret that has the user's key on every compute host."),
        cfg.IntOpt(
            "rados_connect_timeout",
            default=10,
            min=1,
            max=300,
            help="Seconds that a monitor has to answer, in every command. There is no waiting for ever, as there is in cinder.",
        ),
        cfg.BoolOpt(
            "rbd_flatten_volume_from_snapshot",
            default=False,
            help="A volume made from a snapshot is copied whole, so that the snapshot can be deleted before it.",
        ),
        cfg.FloatOpt(
            "rbd_capacity_gb", min=0, help="GiB that driver rbd may promise. Empty: what the cluster's manager says of the pool."
        ),
    )


def _fake_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.FloatOpt("fake_capacity_gb", default=100.0, min=0, help="GiB that driver fake pretends to have."),
        cfg.ListOpt(
            "fake_failures",
            default=[],
            help="What goes wrong in driver fake, in this order: VERB[:before|after[:TIMES[:ERROR]]], divided by commas, as "
            "create_volume:after, delete_volume:before:2:VolumeIsBusy.",
        ),
    )
