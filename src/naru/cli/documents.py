"""The API's documents as templates see them: which fields there are, in which order, what is there if one is not sent.

Docker's CLI reads an answer into Go's types before a template sees it. A list that was not sent prints as `[]`, a map
as `map[]`, an object as `<nil>`; a document prints its values in this order, `json` leaves out what may be left out.
Names, orders and kinds are the Engine API's (its published description, and answers of Docker's CLI 28).
"""

from __future__ import annotations

from collections.abc import Mapping

from naru.template.values import NIL, Duration, NilList, NilMap, Struct, Texts, Time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Field: a string; `#` number, `!` truth, `~` duration, `@` time, `[]` list, `{}` map of strings, `()` anything, `*` may
# be nil; `:Name` of (a list of, a map of) these documents; `?` left out by `json` when empty.
_DOCUMENTS = {
    "Container": "Id Created Path Args[] State*:State Image ResolvConfPath HostnamePath HostsPath LogPath Name"
    " RestartCount# Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs[] HostConfig*:HostConfig"
    " GraphDriver:GraphDriver SizeRw*? SizeRootFs*? ImageManifestDescriptor*? Mounts[]:MountPoint Config*:Config"
    " NetworkSettings*:NetworkSettings",
    "State": "Status Running! Paused! Restarting! OOMKilled! Dead! Pid# ExitCode# Error StartedAt FinishedAt"
    " Health*?:Health",
    "Health": "Status FailingStreak# Log[]",
    "GraphDriver": "Data{} Name",
    "LogConfig": "Type Config{}",
    "RestartPolicy": "Name MaximumRetryCount#",
    "PortBinding": "HostIp HostPort",
    "MountPoint": "Type? Name? Source Destination Driver? Mode RW! Propagation",
    "HostConfig": "Binds[] ContainerIDFile LogConfig:LogConfig NetworkMode PortBindings{}:[]PortBinding"
    " RestartPolicy:RestartPolicy AutoRemove! VolumeDriver VolumesFrom[] ConsoleSize[] Annotations{}? CapAdd[]"
    " CapDrop[] CgroupnsMode Dns[] DnsOptions[] DnsSearch[] ExtraHosts[] GroupAdd[] IpcMode Cgroup Links[]"
    " OomScoreAdj# PidMode Privileged! PublishAllPorts! ReadonlyRootfs! SecurityOpt[] StorageOpt{}? Tmpfs{}? UTSMode"
    " UsernsMode ShmSize# Sysctls{}? Runtime? Isolation CpuShares# Memory# NanoCpus# CgroupParent BlkioWeight#"
    " BlkioWeightDevice[] BlkioDeviceReadBps[] BlkioDeviceWriteBps[] BlkioDeviceReadIOps[] BlkioDeviceWriteIOps[]"
    " CpuPeriod# CpuQuota# CpuRealtimePeriod# CpuRealtimeRuntime# CpusetCpus CpusetMems Devices[]:Device"
    " DeviceCgroupRules[] DeviceRequests[] KernelMemory#? KernelMemoryTCP#? MemoryReservation# MemorySwap#"
    " MemorySwappiness* OomKillDisable* PidsLimit* Ulimits[]:Ulimit CpuCount# CpuPercent# IOMaximumIOps#"
    " IOMaximumBandwidth# Mounts[]?:Mount MaskedPaths[] ReadonlyPaths[] Init*?",
    "Device": "PathOnHost PathInContainer CgroupPermissions",
    "Ulimit": "Name Hard# Soft#",
    "Mount": "Type? Source? Target? ReadOnly!? Consistency? BindOptions*? VolumeOptions*? ImageOptions*?"
    " TmpfsOptions*? ClusterOptions*?",
    "Config": "Hostname Domainname User AttachStdin! AttachStdout! AttachStderr! ExposedPorts{}? Tty! OpenStdin!"
    " StdinOnce! Env[] Cmd[] Healthcheck*?:Healthcheck ArgsEscaped!? Image Volumes{} WorkingDir Entrypoint[]"
    " NetworkDisabled!? MacAddress? OnBuild[] Labels{} StopSignal? StopTimeout*? Shell[]?",
    "Healthcheck": "Test[]? Interval~? Timeout~? StartPeriod~? StartInterval~? Retries#?",
    "NetworkSettings": "Bridge SandboxID SandboxKey Ports{}:[]PortBinding HairpinMode! LinkLocalIPv6Address"
    " LinkLocalIPv6PrefixLen# SecondaryIPAddresses[] SecondaryIPv6Addresses[] EndpointID Gateway GlobalIPv6Address"
    " GlobalIPv6PrefixLen# IPAddress IPPrefixLen# IPv6Gateway MacAddress Networks{}:Endpoint",
    "Endpoint": "IPAMConfig*:EndpointAddresses Links[] Aliases[] MacAddress DriverOpts{} GwPriority# NetworkID"
    " EndpointID Gateway IPAddress IPPrefixLen# IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen# DNSNames[]",
    "EndpointAddresses": "IPv4Address? IPv6Address? LinkLocalIPs[]?",
    "Image": "Id RepoTags[] RepoDigests[] Parent Comment Created? ContainerConfig*?:Config DockerVersion Author"
    " Config*:ImageConfig Architecture Variant? Os OsVersion? Size# VirtualSize#? GraphDriver:GraphDriver RootFS:RootFS"
    " Metadata:ImageMetadata Descriptor*? Manifests[]?",
    "ImageConfig": "User? ExposedPorts{}? Env[]? Entrypoint[]? Cmd[]? Volumes{}? WorkingDir? Labels{}? StopSignal?"
    " ArgsEscaped!? Healthcheck*?:Healthcheck OnBuild[]? Shell[]?",
    "RootFS": "Type? Layers[]?",
    "ImageMetadata": "LastTagTime@?",
    "Network": "Name Id Created@ Scope Driver EnableIPv4! EnableIPv6! IPAM:Ipam Internal! Attachable! Ingress!"
    " ConfigFrom:ConfigReference ConfigOnly! Containers{}:NetworkMember Options{} Labels{} Peers[]? Services{}?",
    "Ipam": "Driver Options{} Config[]:IpamPool",
    "IpamPool": "Subnet? IPRange? Gateway? AuxiliaryAddresses{}?",
    "ConfigReference": "Network",
    "NetworkMember": "Name EndpointID MacAddress IPv4Address IPv6Address",
    "Volume": "ClusterVolume*? CreatedAt? Driver Labels{} Mountpoint Name Options{} Scope Status{}?"
    " UsageData*?:VolumeUsage",
    "VolumeUsage": "RefCount# Size#",
    "Event": "status? id? from? Type Action Actor:Actor scope? time#? timeNano#?",
    "Actor": "ID Attributes{}",
    "Version": "Client:ClientVersion Server*:ServerVersion",
    "ClientVersion": "Version ApiVersion DefaultAPIVersion? GitCommit GoVersion Os Arch BuildTime? Context",
    "Component": "Name Version Details{}?",
    "ServerVersion": "Platform()? Components[]?:Component Version ApiVersion MinAPIVersion? GitCommit GoVersion Os Arch"
    " KernelVersion? Experimental!? BuildTime?",
    "Info": "ID Containers# ContainersRunning# ContainersPaused# ContainersStopped# Images# Driver DriverStatus[]"
    " SystemStatus[]? Plugins:Plugins MemoryLimit! SwapLimit! KernelMemory!? CpuCfsPeriod! CpuCfsQuota! CPUShares!"
    " CPUSet! PidsLimit! IPv4Forwarding! Debug! NFd# OomKillDisable! NGoroutines# SystemTime LoggingDriver"
    " CgroupDriver CgroupVersion? NEventsListener# KernelVersion OperatingSystem OSVersion OSType Architecture"
    " IndexServerAddress RegistryConfig() NCPU# MemTotal# GenericResources[] DockerRootDir HttpProxy HttpsProxy"
    " NoProxy Name Labels[] ExperimentalBuild! ServerVersion Runtimes() DefaultRuntime Swarm:Swarm LiveRestoreEnabled!"
    " Isolation InitBinary ContainerdCommit() RuncCommit() InitCommit() SecurityOptions[] ProductLicense?"
    " DefaultAddressPools[]? FirewallBackend*? DiscoveredDevices[]? CDISpecDirs[] Containerd*? Warnings[]"
    " ClientInfo:ClientInfo",
    "Swarm": "NodeID NodeAddr LocalNodeState ControlAvailable! Error RemoteManagers[] Nodes#? Managers#? Cluster*?"
    " Warnings[]?",
    "Plugins": "Volume[] Network[] Authorization[] Log[]",
    "ClientInfo": "Debug! Version DefaultAPIVersion GitCommit GoVersion Os Arch BuildTime Context Plugins[] Warnings[]",
}


_READERS = {"~": Duration, "@": Time}


def document(name: str, sent: Mapping[str, Any], *, kind: str = "") -> Struct:
    """Return an answer as the document `name`; what it does not know comes last.

    `kind`: its type in the error for a field that it does not have; "": such a field counts as missing from a map.
    """
    values: dict[str, Any] = {}
    optional = set()
    for field in _DOCUMENTS[name].split():
        head, _, inner = field.partition(":")
        if head.endswith("?"):
            head = head[:-1]
        key = head.rstrip("#!~@[]{}()*")
        if "?" in field:
            optional.add(key)
        values[key] = _value(head[len(key) :], inner, sent.get(key))
    values |= {key: value for key, value in sent.items() if key not in values}
    return Struct(values, optional=optional, kind=kind)


def _value(mark: str, inner: str, sent: Any) -> Any:
    """Return one field's value by its mark and the document inside."""
    if sent is None:
        return _zero(mark, inner)
    if mark in ("", "*") and inner and isinstance(sent, Mapping):
        return document(inner, sent)
    if mark == "[]" and inner:
        return [document(inner, one) for one in sent]
    if mark == "{}" and isinstance(sent, Mapping):
        sent = dict(sorted(sent.items()))  # Go encodes maps in order
    if mark == "{}" and inner.startswith("[]"):
        inner = inner[2:]
        return {key: _value("[]", inner, some) for key, some in sent.items()}
    if mark == "{}" and inner:
        return {key: document(inner, one) for key, one in sent.items()}
    if mark == "{}" and all(isinstance(one, str) for one in sent.values()):
        return Texts(sent)
    return _READERS[mark](sent) if mark in _READERS else sent


def _zero(mark: str, inner: str) -> Any:
    if mark == "*":
        return NIL
    if mark == "()":
        return None
    if mark == "" and inner:
        return document(inner, {})
    kinds = {"": str, "#": int, "!": bool, "~": Duration, "@": Time, "[]": NilList, "{}": NilMap}
    return kinds[mark]()
