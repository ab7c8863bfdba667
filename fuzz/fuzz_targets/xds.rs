//! Resources as a controller sends them: bytes that convert to the model survive the way back, and what they say can be compiled and asked.
//!
//! The first byte chooses the type of the resource.
#![no_main]

use std::fmt::Debug;
use std::sync::Arc;

use http::{HeaderMap, Method};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use proto::resources as wire;
use routing::matcher::RequestHead;
use routing::model::{Backend, Frontend, Vip};
use routing::table::RouteTable;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => drop(converted::<wire::Vip, Vip>(bytes)),
        1 => drop(converted::<wire::Backend, Backend>(bytes)),
        _ => {
            if let Some(frontend) = converted::<wire::Frontend, Frontend>(bytes) {
                ask(frontend);
            }
        }
    }
});

/// The model that the bytes mean, if they mean one; it is the same after another journey.
fn converted<W, M>(bytes: &[u8]) -> Option<M>
where
    W: Message + Default + for<'m> From<&'m M>,
    M: TryFrom<W> + Debug + PartialEq,
{
    let model = M::try_from(W::decode(bytes).ok()?).ok()?;
    let again = W::decode(W::from(&model).encode_to_vec().as_slice()).expect("it was encoded");
    assert_eq!(proto::version(&again), proto::version(&W::from(&model)), "equal content, equal version");
    assert_eq!(M::try_from(again).ok().as_ref(), Some(&model));
    Some(model)
}

fn ask(frontend: Frontend) {
    for name in ["", "a.shop.example.com", "EXAMPLE.COM", "10.0.0.1"] {
        // Which it is depends on the configuration; that it ends is the check.
        let _ = routing::server_name::select(&frontend, name);
    }
    let table = RouteTable::compile(Arc::new(frontend));
    let headers: HeaderMap = [("x-one", "1"), ("x-two", "2")]
        .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
        .into_iter()
        .collect();
    for (method, path, query) in [
        (Method::GET, "/", None),
        (Method::POST, "/cart/items", Some("q=1&q=%32&r")),
        (Method::OPTIONS, "*", None),
        (Method::GET, "", Some("")),
        (Method::POST, "/shop.Cart/Add", None),
    ] {
        let head = RequestHead { method: &method, path, query, authority: Some("store"), headers: &headers };
        if let Some(selection) = table.select(&head) {
            assert!(selection.matched.accepts(&head));
            assert_eq!(table.at(selection.position).map(|same| same.matched), Some(selection.matched));
        }
    }
}
