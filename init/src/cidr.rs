//! A range of addresses as people write it: `10.96.0.0/16`, `fd96::/64`, or one address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network; its host bits are zero.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Cidr {
    network: IpAddr,
    length: u8,
}

/// A text that is no CIDR.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text:?} is no CIDR: {problem}")]
pub struct InvalidCidr {
    text: String,
    problem: &'static str,
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let invalid = |problem| InvalidCidr { text: text.to_owned(), problem };
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let network: IpAddr = address.parse().map_err(|_| invalid("not an IP address before the slash"))?;
        let whole = if network.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().ok().filter(|length| *length <= whole).ok_or_else(|| invalid("no such prefix length"))?,
            None => whole,
        };
        let cidr = Self { network, length };
        if cidr.first() != network {
            return Err(invalid("bits are set beyond the prefix length"));
        }
        Ok(cidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl Cidr {
    /// The first address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        match self.network {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !self.host_bits_v4()).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !self.host_bits_v6()).into(),
        }
    }

    /// The last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        match self.network {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() | self.host_bits_v4()).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() | self.host_bits_v6()).into(),
        }
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4() && (self.first()..=self.last()).contains(&address)
    }

    fn host_bits_v4(&self) -> u32 {
        u32::MAX.checked_shr(self.length.into()).unwrap_or(0)
    }

    fn host_bits_v6(&self) -> u128 {
        u128::MAX.checked_shr(self.length.into()).unwrap_or(0)
    }
}

/// The same addresses as ranges that neither overlap nor touch, which is how the kernel wants them.
#[must_use]
pub fn merged(cidrs: &[Cidr]) -> Vec<(IpAddr, IpAddr)> {
    let mut sorted: Vec<(IpAddr, IpAddr)> = cidrs.iter().map(|cidr| (cidr.first(), cidr.last())).collect();
    sorted.sort_unstable();
    let mut ranges: Vec<(IpAddr, IpAddr)> = Vec::new();
    for (first, last) in sorted {
        match ranges.last_mut() {
            Some((before, end)) if before.is_ipv4() == first.is_ipv4() && (first <= *end || follows(*end, first)) => *end = last.max(*end),
            Some(_) | None => ranges.push((first, last)),
        }
    }
    ranges
}

fn follows(end: IpAddr, first: IpAddr) -> bool {
    match (end, first) {
        (IpAddr::V4(end), IpAddr::V4(first)) => end.to_bits().checked_add(1) == Some(first.to_bits()),
        (IpAddr::V6(end), IpAddr::V6(first)) => end.to_bits().checked_add(1) == Some(first.to_bits()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("a CIDR")
    }

    #[test]
    fn bounds_are_those_of_the_network() {
        for (text, first, last) in [
            ("10.96.0.0/16", "10.96.0.0", "10.96.255.255"),
            ("10.96.0.1", "10.96.0.1", "10.96.0.1"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
            ("fd96::/64", "fd96::", "fd96::ffff:ffff:ffff:ffff"),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!((cidr(text).first().to_string(), cidr(text).last().to_string()), (first.to_owned(), last.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_wrong_text_is_named() {
        for text in ["", "10.96.0.0/33", "10.96.0.1/16", "10.96/16", "fd96::/129", "x/8"] {
            let error = text.parse::<Cidr>().expect_err("no CIDR");
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn ranges_that_overlap_or_touch_become_one() {
        let ranges = merged(&[cidr("10.0.1.0/24"), cidr("10.0.0.0/24"), cidr("10.0.0.7"), cidr("fd00::/64"), cidr("10.0.3.0/24")]);
        let expected = [("10.0.0.0", "10.0.1.255"), ("10.0.3.0", "10.0.3.255"), ("fd00::", "fd00::ffff:ffff:ffff:ffff")];
        let text: Vec<_> = ranges.iter().map(|(first, last)| (first.to_string(), last.to_string())).collect();
        assert_eq!(text, expected.map(|(first, last)| (first.to_owned(), last.to_owned())));
    }
}
