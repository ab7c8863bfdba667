//! Links, addresses and routes, over netlink.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use anyhow::Context;
use futures::TryStreamExt;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::Namespace;

/// What a pod's default route leads to: the cluster's end of its link, the same for every pod.
pub(crate) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A family pair.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// Both, IPv4 first.
    #[must_use]
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

async fn handle() -> anyhow::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().context("netlink")?;
    // Ends with the runtime of the one call that it is for.
    tokio::spawn(connection);
    Ok(handle)
}

async fn index(handle: &Handle, name: &str) -> anyhow::Result<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await.with_context(|| format!("link {name}"))?;
    Ok(link.with_context(|| format!("no link {name}"))?.header.index)
}

async fn up(handle: &Handle, name: &str) -> anyhow::Result<u32> {
    let index = index(handle, name).await?;
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.with_context(|| format!("{name} up"))?;
    Ok(index)
}

/// Loopback, and no duplicate address detection, which would only delay.
pub(crate) fn prepare(namespace: &Namespace, forwards: Forwards) -> anyhow::Result<()> {
    namespace.block_on(|| async move {
        let handle = handle().await?;
        sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        if forwards == Forwards::Yes {
            sysctl("net/ipv4/ip_forward", "1")?;
            sysctl("net/ipv6/conf/all/forwarding", "1")?;
        }
        up(&handle, "lo").await?;
        Ok(())
    })
}

/// Loopback, and a default route over it, in the network namespace of the calling thread: a pod without a network. What is redirected to
/// somebody in there is answered.
///
/// # Errors
/// The kernel's reason not to.
pub fn loopback_only() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let handle = handle().await?;
        let index = up(&handle, "lo").await?;
        // A link without a global address would have connections come from nowhere.
        let default =
            RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).scope(RouteScope::Link).pref_source(Ipv4Addr::LOCALHOST);
        handle.route().add(default.build()).execute().await.context("default route")
    })
}

/// Whether a namespace forwards between its links.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Forwards {
    /// It does.
    Yes,
    /// It does not.
    No,
}

fn sysctl(name: &str, value: &str) -> anyhow::Result<()> {
    fs::write(format!("/proc/sys/{name}"), value).with_context(|| format!("sysctl {name}={value}"))
}

/// Gives a pod a link to its cluster: its own addresses only, everything else through the cluster.
pub(crate) fn connect_pod(cluster: &Namespace, pod: &Namespace, link: &str, addresses: Addresses) -> anyhow::Result<()> {
    let pod_end = format!("{link}p");
    cluster.block_on(|| async {
        let handle = handle().await?;
        join(&handle, link, &pod_end, pod).await?;
        let index = index(&handle, link).await?;
        handle.address().add(index, GATEWAY_V4.into(), 32).execute().await.context("gateway address")?;
        handle.address().add(index, GATEWAY_V6.into(), 64).execute().await.context("gateway address")?;
        up(&handle, link).await?;
        for address in addresses.both() {
            route(&handle, address, whole(address), None, index).await?;
        }
        Ok(())
    })?;
    pod.block_on(|| async {
        let handle = handle().await?;
        let index = index(&handle, &pod_end).await?;
        handle.link().set(LinkUnspec::new_with_index(index).name("eth0").build()).execute().await.context("name eth0")?;
        for address in addresses.both() {
            handle.address().add(index, address, whole(address)).execute().await.context("pod address")?;
        }
        up(&handle, "eth0").await?;
        route(&handle, GATEWAY_V4.into(), 32, None, index).await?;
        route(&handle, Ipv4Addr::UNSPECIFIED.into(), 0, Some(GATEWAY_V4.into()), index).await?;
        route(&handle, Ipv6Addr::UNSPECIFIED.into(), 0, Some(GATEWAY_V6.into()), index).await
    })
}

/// Joins a cluster to the router: its pods are reached there, everything else through the router.
pub(crate) fn connect_cluster(
    router: &Namespace,
    cluster: &Namespace,
    link: &str,
    ends: (Addresses, Addresses),
    pods: [(IpAddr, u8); 2],
) -> anyhow::Result<()> {
    let (router_end, cluster_end) = ends;
    let there = format!("{link}c");
    router.block_on(|| async {
        let handle = handle().await?;
        join(&handle, link, &there, cluster).await?;
        let index = index(&handle, link).await?;
        add_link_addresses(&handle, index, router_end).await?;
        up(&handle, link).await?;
        for ((network, length), gateway) in pods.into_iter().zip(cluster_end.both()) {
            route(&handle, network, length, Some(gateway), index).await?;
        }
        Ok(())
    })?;
    cluster.block_on(|| async {
        let handle = handle().await?;
        let index = index(&handle, &there).await?;
        add_link_addresses(&handle, index, cluster_end).await?;
        up(&handle, &there).await?;
        route(&handle, Ipv4Addr::UNSPECIFIED.into(), 0, Some(router_end.v4.into()), index).await?;
        route(&handle, Ipv6Addr::UNSPECIFIED.into(), 0, Some(router_end.v6.into()), index).await
    })
}

async fn add_link_addresses(handle: &Handle, index: u32, addresses: Addresses) -> anyhow::Result<()> {
    handle.address().add(index, addresses.v4.into(), 30).execute().await.context("link address")?;
    handle.address().add(index, addresses.v6.into(), 64).execute().await.context("link address")
}

/// A pair of links, the second one in another namespace.
async fn join(handle: &Handle, here: &str, there: &str, namespace: &Namespace) -> anyhow::Result<()> {
    handle.link().add(LinkVeth::new(here, there).build()).execute().await.with_context(|| format!("links {here}, {there}"))?;
    let index = index(handle, there).await?;
    let moved = LinkUnspec::new_with_index(index).setns_by_fd(namespace.net().as_raw_fd()).build();
    handle.link().set(moved).execute().await.with_context(|| format!("move {there}"))
}

fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

async fn route(handle: &Handle, network: IpAddr, length: u8, gateway: Option<IpAddr>, index: u32) -> anyhow::Result<()> {
    let describe = || format!("route to {network}/{length}");
    let mut builder = RouteMessageBuilder::<IpAddr>::new();
    builder = builder.destination_prefix(network, length).with_context(describe)?.output_interface(index);
    builder = match gateway {
        Some(gateway) => builder.gateway(gateway).with_context(describe)?,
        None => builder.scope(RouteScope::Link),
    };
    handle.route().add(builder.build()).execute().await.with_context(describe)
}
