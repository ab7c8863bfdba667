//! What a stream is told, in which order, and what it is not told again.

use std::sync::Arc;

use prost::Message as _;
use proto::{encoded, type_url, xds};

use super::*;

/// Name and version of all that there is.
#[derive(Default)]
struct Fixed {
    resources: BTreeMap<Kind, BTreeMap<String, Arc<Resource>>>,
    /// Names that others see.
    withheld: BTreeSet<String>,
}

impl View for Fixed {
    fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&kind)?.get(name)
    }

    fn is_withheld(&self, _: Kind, name: &str) -> bool {
        self.withheld.contains(name)
    }

    fn all(&self, kind: Kind) -> Box<dyn Iterator<Item = &Arc<Resource>> + '_> {
        Box::new(self.resources.get(&kind).into_iter().flat_map(BTreeMap::values))
    }

    fn revision(&self) -> &str {
        ""
    }
}

fn view(vips: &[(&str, &str)], frontends: &[(&str, &str)], backends: &[(&str, &str)]) -> Fixed {
    let resource = |(name, version): &(&str, &str)| {
        let resource = Resource::new((*name).to_owned(), (*version).to_owned(), None);
        ((*name).to_owned(), Arc::new(resource))
    };
    let all = Kind::ALL.into_iter().zip([vips, frontends, backends]);
    Fixed { resources: all.map(|(kind, items)| (kind, items.iter().map(resource).collect())).collect(), ..Fixed::default() }
}

fn ask(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    let names = names.iter().map(ToString::to_string).collect();
    DeltaDiscoveryRequest { type_url: type_url.to_owned(), resource_names_subscribe: names, ..Default::default() }
}

fn asked(requests: Vec<DeltaDiscoveryRequest>) -> Session {
    let mut session = Session::default();
    for request in requests {
        session.request(request).expect("taken");
    }
    session
}

/// `vip +a -b` for each response, when every name that there is or was may mean something else.
fn said(session: &mut Session, view: &Fixed) -> Vec<String> {
    const NAMES: [&str; 7] = ["v", "f", "a", "b", "other", "gone", "c"];
    session.changed(Kind::ALL.into_iter().flat_map(|kind| NAMES.map(|name| (kind, name.to_owned()))).collect());
    let short = |answer: Answer| {
        let mut text = answer.head.type_url.rsplit('.').next().unwrap_or_default().to_lowercase();
        for resource in answer.resources.iter() {
            text += &format!(" +{}", xds::Resource::decode(resource.encoded.clone()).expect("decodes").name);
        }
        for name in answer.head.removed_resources {
            text += &format!(" -{name}");
        }
        text
    };
    session.responses(view).into_iter().map(short).collect()
}

#[test]
fn what_is_new_goes_out_from_backend_to_vip_and_what_is_gone_in_reverse() {
    let mut session = asked(vec![ask(type_url::VIP, &[]), ask(type_url::FRONTEND, &["f"]), ask(type_url::BACKEND, &["b"])]);
    let full = view(&[("v", "1")], &[("f", "1")], &[("b", "1"), ("other", "1")]);
    assert_eq!(said(&mut session, &full), ["backend +b", "frontend +f", "vip +v"]);
    assert_eq!(said(&mut session, &full), Vec::<String>::new());
    assert_eq!(said(&mut session, &view(&[], &[], &[])), ["vip -v", "frontend -f", "backend -b"]);
}

#[test]
fn only_a_new_version_is_sent_again() {
    let mut session = asked(vec![ask(type_url::VIP, &[]), ask(type_url::BACKEND, &["a", "b"])]);
    said(&mut session, &view(&[], &[], &[("a", "1"), ("b", "1")]));
    assert_eq!(said(&mut session, &view(&[], &[], &[("a", "1"), ("b", "2")])), ["backend +b"]);
}

#[test]
fn a_name_that_does_not_exist_is_said_to_be_gone_once_and_again_when_asked_again() {
    let mut session = asked(vec![ask(type_url::VIP, &[]), ask(type_url::FRONTEND, &["f"])]);
    assert_eq!(said(&mut session, &view(&[], &[], &[])), ["vip", "frontend -f"]);
    assert_eq!(said(&mut session, &view(&[], &[], &[])), Vec::<String>::new());
    session
        .request(DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["f".to_owned()], ..ask(type_url::FRONTEND, &[]) })
        .expect("taken");
    session.request(ask(type_url::FRONTEND, &["f"])).expect("taken");
    assert_eq!(said(&mut session, &view(&[], &[], &[])), ["frontend -f"]);
    assert_eq!(said(&mut session, &view(&[], &[("f", "1")], &[])), ["frontend +f"]);
}

#[test]
fn a_backend_that_no_route_refers_to_any_more_is_not_taken_away_and_not_shown_to_who_never_saw_it() {
    let mut session = asked(vec![ask(type_url::VIP, &[]), ask(type_url::BACKEND, &["b"])]);
    said(&mut session, &view(&[], &[], &[("b", "1")]));
    let withheld = Fixed { withheld: ["a", "b"].map(str::to_owned).into(), ..Fixed::default() };
    assert_eq!(said(&mut session, &withheld), Vec::<String>::new(), "its old routes have it still");
    session.request(ask(type_url::BACKEND, &["a"])).expect("taken");
    assert_eq!(said(&mut session, &withheld), ["backend -a"], "to a stranger it does not exist");
    assert_eq!(said(&mut session, &view(&[], &[], &[("b", "1")])), Vec::<String>::new(), "it has it");
    assert_eq!(said(&mut session, &Fixed::default()), ["backend -b"], "now it is gone");
}

#[test]
fn what_is_unsubscribed_is_not_sent() {
    let mut session = asked(vec![ask(type_url::VIP, &[]), ask(type_url::BACKEND, &["b"])]);
    said(&mut session, &view(&[], &[], &[("b", "1")]));
    session
        .request(DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["b".to_owned()], ..ask(type_url::BACKEND, &[]) })
        .expect("taken");
    assert_eq!(said(&mut session, &view(&[], &[], &[("b", "2")])), Vec::<String>::new());
}

#[test]
fn after_a_reconnect_only_differences_travel() {
    let held = |names: &[(&str, &str)]| names.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
    let vips = DeltaDiscoveryRequest { initial_resource_versions: held(&[("v", "1"), ("gone", "1")]), ..ask(type_url::VIP, &[]) };
    let backends =
        DeltaDiscoveryRequest { initial_resource_versions: held(&[("a", "1"), ("b", "1")]), ..ask(type_url::BACKEND, &["a", "b"]) };
    let mut session = asked(vec![vips, backends]);
    assert_eq!(said(&mut session, &view(&[("v", "1")], &[], &[("a", "1"), ("b", "2")])), ["backend +b", "vip", "vip -gone"]);
}

#[test]
fn progress_waits_for_every_answer_and_keeps_what_was_rejected() {
    let mut session = asked(vec![ask(type_url::VIP, &[]), ask(type_url::BACKEND, &["b"])]);
    let nonces: Vec<String> =
        session.responses(&view(&[("v", "1")], &[], &[("b", "1")])).into_iter().map(|answer| answer.head.nonce).collect();
    assert!(!session.progress().acknowledged);
    let answer = |type_url: &str, nonce: &str| DeltaDiscoveryRequest { response_nonce: nonce.to_owned(), ..ask(type_url, &[]) };
    session.request(answer(type_url::VIP, &nonces[1])).expect("taken");
    assert!(!session.progress().acknowledged);
    let error = encoded::Status { code: 3, message: "b: id: is missing".to_owned() };
    session.request(DeltaDiscoveryRequest { error_detail: Some(error), ..answer(type_url::BACKEND, &nonces[0]) }).expect("taken");
    assert!(session.progress().acknowledged);
    assert_eq!(session.progress().rejected.get("backend").map(String::as_str), Some("b: id: is missing"));
}

#[test]
fn an_unknown_type_or_nonce_ends_the_stream() {
    let mut session = Session::default();
    assert!(session.request(ask("type.googleapis.com/example.Thing", &[])).is_err());
    let answer = DeltaDiscoveryRequest { response_nonce: "7".to_owned(), ..ask(type_url::VIP, &[]) };
    assert!(session.request(answer).is_err());
}

#[test]
fn a_frontend_is_held_and_then_acknowledged() {
    let mut session = asked(vec![ask(type_url::VIP, &[]), ask(type_url::FRONTEND, &["f", "g"])]);
    let answers = session.responses(&view(&[("v", "1")], &[("f", "1"), ("g", "1")], &[]));
    let nonces: Vec<String> = answers.into_iter().map(|answer| answer.head.nonce).collect();
    let state = |session: &Session| {
        let mut held: Vec<String> = session
            .progress()
            .frontends
            .iter()
            .map(|held| format!("{} {} {:?}", held.resource.name, held.resource.version, held.unacknowledged.map(|state| state.is_refused)))
            .collect();
        held.sort();
        (held, session.progress().vips_unacknowledged.len())
    };
    let answer = |type_url: &str, nonce: &str| DeltaDiscoveryRequest { response_nonce: nonce.to_owned(), ..ask(type_url, &[]) };
    assert_eq!(state(&session), (vec!["f 1 Some(false)".to_owned(), "g 1 Some(false)".to_owned()], 1));
    session.request(answer(type_url::FRONTEND, &nonces[0])).expect("taken");
    assert_eq!(state(&session), (vec!["f 1 None".to_owned(), "g 1 None".to_owned()], 1));
    session.request(answer(type_url::VIP, &nonces[1])).expect("taken");
    assert_eq!(state(&session), (vec!["f 1 None".to_owned(), "g 1 None".to_owned()], 0));
    session.changed([(Kind::Frontend, "f".to_owned())].into());
    let nonce = session.responses(&view(&[("v", "1")], &[("f", "2"), ("g", "1")], &[])).remove(0).head.nonce;
    let error = encoded::Status { code: 3, message: "f: rules: are missing".to_owned() };
    session.request(DeltaDiscoveryRequest { error_detail: Some(error), ..answer(type_url::FRONTEND, &nonce) }).expect("taken");
    assert_eq!(state(&session), (vec!["f 2 Some(true)".to_owned(), "g 1 None".to_owned()], 0), "a rejection is no acknowledgement");
    // Whatever it answers, it says what it rejects: others are obeyed, and what is mended is obeyed again.
    let error = encoded::Status { code: 3, message: "f: rules: are missing".to_owned() };
    session.changed([(Kind::Frontend, "g".to_owned())].into());
    let nonce = session.responses(&view(&[("v", "1")], &[("f", "2"), ("g", "2")], &[])).remove(0).head.nonce;
    session.request(DeltaDiscoveryRequest { error_detail: Some(error), ..answer(type_url::FRONTEND, &nonce) }).expect("taken");
    assert_eq!(state(&session), (vec!["f 2 Some(true)".to_owned(), "g 2 None".to_owned()], 0));
    session.request(answer(type_url::FRONTEND, &nonce)).expect("taken");
    assert_eq!(state(&session), (vec!["f 2 None".to_owned(), "g 2 None".to_owned()], 0));
}

#[test]
fn what_is_taken_over_from_an_earlier_stream_is_acknowledged_by_the_first_answer() {
    let held = [("v".to_owned(), "1".to_owned())].into();
    let mut session = asked(vec![DeltaDiscoveryRequest { initial_resource_versions: held, ..ask(type_url::VIP, &[]) }]);
    let nonce = session.responses(&view(&[("v", "1")], &[], &[])).remove(0).head.nonce;
    assert_eq!(session.progress().vips_unacknowledged.len(), 1, "it holds it, but may not intercept it");
    session.request(DeltaDiscoveryRequest { response_nonce: nonce, ..ask(type_url::VIP, &[]) }).expect("taken");
    assert!(session.progress().vips_unacknowledged.is_empty() && session.progress().is_returning);
}
