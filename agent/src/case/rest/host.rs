//! Whom a request was meant for, by its host header.

use std::net::IpAddr;

use http::{HeaderMap, header::HOST};

/// A page of a foreign site can make a browser call loopback under the site's own name (DNS
/// rebinding), never under this one.
pub(super) fn is_for_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<http::uri::Authority>().ok())
    else {
        return false;
    };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_this_machine_s_own_names_are_answered() {
        let is = |host: &str| {
            is_for_loopback(&HeaderMap::from_iter([(HOST, HeaderValue::from_str(host).unwrap())]))
        };
        for good in ["localhost", "LOCALHOST:7411", "127.0.0.1:7411", "127.0.0.9", "[::1]:7411", "[::1]"] {
            assert!(is(good), "{good}");
        }
        for bad in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "", "a b"]
        {
            assert!(!is(bad), "{bad}");
        }
        assert!(!is_for_loopback(&HeaderMap::new()));
        let two = [(HOST, HeaderValue::from_static("localhost")), (HOST, HeaderValue::from_static("evil"))];
        let mut headers = HeaderMap::new();
        for (name, value) in two {
            headers.append(name, value);
        }
        assert!(!is_for_loopback(&headers));
    }
}
