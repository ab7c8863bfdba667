//! Interception of a pod's connections to VIPs: one nf_tables transaction over netlink.
