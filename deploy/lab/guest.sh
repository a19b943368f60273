#!/usr/bin/env bash
# Makes a small Linux guest from Debian's packages: FOLDER/vmlinuz and FOLDER/initrd.gz, for [qemu] kernel and initrd of nova.conf.
#
#     deploy/lab/guest.sh [FOLDER]          default: .guest
#
# The kernel is Debian's cloud kernel, unpacked and not installed; the initramfs is busybox, the modules of virtio disks and of the
# power button, and deploy/lab/guest-init. Needs apt-get, dpkg-deb, cpio and a static busybox (packages busybox-static, cpio).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=$(realpath -m "${1:-.guest}")
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

die() {
    echo "guest.sh: $*" >&2
    exit 1
}

for program in apt-get dpkg-deb cpio busybox; do
    command -v "$program" > /dev/null || die "$program is missing; install the packages busybox-static and cpio, on Debian"
done
if ldd "$(command -v busybox)" > /dev/null 2>&1; then
    die "busybox is not a static program, and the guest has no libraries; install busybox-static in its place"
fi

meta=linux-image-cloud-$(dpkg --print-architecture)
package=$(apt-cache depends "$meta" 2> /dev/null | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
[ -n "$package" ] || die "apt knows no $meta; run apt-get update, on Debian"
(cd "$work" && apt-get download -qq "$package" 2> /dev/null) || die "$package could not be downloaded"

# In the order in which they are loaded: each needs those before it.
modules=(
    drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci_legacy_dev
    drivers/virtio/virtio_pci drivers/block/virtio_blk drivers/acpi/button drivers/input/evdev
)
mkdir -p "$work/kernel" "$work/root"/{bin,dev,etc/acpi/PWRF,proc,sys,modules}
dpkg-deb --fsys-tarfile "$work"/linux-image-*.deb | tar -x -C "$work/kernel" --wildcards './boot/vmlinuz-*' \
    './lib/modules/*/kernel/drivers/'{acpi,block,input,virtio}'/*.ko'

number=10
for module in "${modules[@]}"; do
    cp "$work"/kernel/lib/modules/*/kernel/"$module".ko "$work/root/modules/$number-$(basename "$module").ko"
    number=$((number + 1))
done
cp "$(command -v busybox)" "$work/root/bin/busybox"
install -m 755 "$here/guest-init" "$work/root/init"
printf '#!/bin/busybox sh\nexec poweroff -f\n' > "$work/root/etc/acpi/PWRF/00000080"
chmod 755 "$work/root/etc/acpi/PWRF/00000080"

(cd "$work/root" && find . -print0 | cpio --quiet --null -o -H newc) | gzip -9 > "$work/initrd.gz"
cp "$work"/kernel/boot/vmlinuz-* "$folder/vmlinuz"
cp "$work/initrd.gz" "$folder/initrd.gz"
chmod 644 "$folder/vmlinuz" "$folder/initrd.gz"
echo "$folder/vmlinuz and $folder/initrd.gz are made of $package"
