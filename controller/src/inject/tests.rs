use super::*;

fn settings(native: bool) -> Settings {
    Settings {
        cluster: "east".to_owned(),
        sidecar_image: "sidecar:1".to_owned(),
        init_image: "init:1".to_owned(),
        controller: "https://isthmus-controller.isthmus-system.svc:15010".to_owned(),
        ca: "PEM".to_owned(),
        native,
        ranges: vec!["10.96.0.0/12".to_owned()],
        traces: None,
    }
}

#[test]
fn spans_go_where_the_mesh_says_unless_the_pod_says_no() {
    let traces = Some(Traces { endpoint: "http://collector:4317".to_owned(), sampling: 0.5 });
    let settings = Settings { traces, ..settings(true) };
    let named = |pod: &Value| {
        let injected = injected(pod, &settings).to_string();
        (injected.contains("http://collector:4317"), injected.contains(r#"{"name":"ISTHMUS_TRACE_SAMPLING","value":"0.5"}"#))
    };
    assert_eq!(named(&pod()), (true, true));
    let mut without = pod();
    without["metadata"]["annotations"] = json!({"isthmus.dev/traces": "false"});
    assert_eq!(named(&without), (false, false));
}

fn enabled() -> BTreeMap<String, String> {
    BTreeMap::from([(NAMESPACE_LABEL.to_owned(), "enabled".to_owned())])
}

fn pod() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {
        "initContainers": [{"name": "migrate", "image": "m"}], "containers": [{"name": "web", "image": "w"}], "futureField": 7,
    }})
}

fn injected(pod: &Value, settings: &Settings) -> Value {
    match inject(pod, &enabled(), settings) {
        Ok(Outcome::Injected { pod, .. }) => pod,
        other => panic!("{other:?}"),
    }
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let list = pod["spec"][list].as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|item| item["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn native_sidecars_come_before_the_users_own_init_containers() {
    let after = injected(&pod(), &settings(true));
    assert_eq!(names(&after, "initContainers"), ["isthmus-init", "isthmus-sidecar", "migrate"]);
    assert_eq!(names(&after, "containers"), ["web"], "the application keeps its place");
    assert_eq!(after["spec"]["initContainers"][0]["args"][0], "watch");
    assert_eq!(after["spec"]["initContainers"][0]["restartPolicy"], "Always");
    assert_eq!(after["spec"]["futureField"], 7, "what is not known stays");
}

#[test]
fn without_native_sidecars_the_one_shot_is_last() {
    let after = injected(&pod(), &settings(false));
    assert_eq!(names(&after, "initContainers"), ["migrate", "isthmus-init"]);
    assert_eq!(names(&after, "containers"), ["isthmus-sidecar", "web"]);
    let hook = &after["spec"]["containers"][0]["lifecycle"]["postStart"]["exec"]["command"];
    assert_eq!(hook, &json!(["/isthmus-sidecar", "--await-startup"]), "the application waits for it");
    assert_eq!(after["spec"]["initContainers"][1]["args"][1], "--cidr=10.96.0.0/12");
    assert!(after["spec"]["initContainers"][1].get("restartPolicy").is_none());
}

#[test]
fn twice_is_once_and_puts_ours_first_again() {
    let once = injected(&pod(), &settings(true));
    assert_eq!(injected(&once, &settings(true)), once);
    let mut between = once.clone();
    between["spec"]["initContainers"].as_array_mut().expect("a list").insert(0, json!({"name": "other-mesh"}));
    assert_eq!(names(&injected(&between, &settings(true)), "initContainers"), ["isthmus-init", "isthmus-sidecar", "other-mesh", "migrate"]);
}

#[test]
fn what_others_changed_in_ours_stays() {
    let mut pod = injected(&pod(), &settings(true));
    let mirror = "mirror.example/sidecar:1";
    pod["spec"]["initContainers"][1]["image"] = json!(mirror);
    pod["spec"]["initContainers"][1]["imagePullPolicy"] = json!("Always");
    pod["spec"]["initContainers"][0]["resources"]["limits"]["cpu"] = json!("100m");
    assert_eq!(injected(&pod, &settings(true)), pod);
    let other_form = injected(&pod, &settings(false));
    assert_eq!(other_form["spec"]["containers"][0]["image"], "sidecar:1", "what is of another form is made anew");
}

#[test]
fn only_init_has_a_capability_and_nobody_is_root() {
    let after = injected(&pod(), &settings(true));
    let [init, sidecar] = [0, 1].map(|index| &after["spec"]["initContainers"][index]["securityContext"]);
    assert_eq!(init["capabilities"], json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}));
    assert_eq!(sidecar["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(sidecar["allowPrivilegeEscalation"], false);
    for security in [init, sidecar] {
        assert_eq!((&security["runAsNonRoot"], &security["readOnlyRootFilesystem"]), (&json!(true), &json!(true)));
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    }
}

#[test]
fn who_is_left_alone() {
    let with = |place: &str, value: Value| {
        let mut pod = pod();
        *pod.pointer_mut(place).expect("a place") = value;
        pod
    };
    let spec = |field: &str, value: Value| {
        let mut spec = pod()["spec"].clone();
        spec[field] = value;
        with("/spec", spec)
    };
    let note = |value: &str| with("/metadata", json!({"annotations": {POD_ANNOTATION: value}}));
    let disabled = BTreeMap::from([(NAMESPACE_LABEL.to_owned(), "disabled".to_owned())]);
    for (pod, labels, outcome) in [
        (pod(), BTreeMap::new(), Some(Skipped::NotAsked)),
        (pod(), disabled.clone(), Some(Skipped::NotAsked)),
        (note("true"), disabled, None),
        (note("true"), BTreeMap::new(), None),
        (note("false"), enabled(), Some(Skipped::OptedOut)),
        (spec("hostNetwork", json!(true)), enabled(), Some(Skipped::HostNetwork)),
        (spec("os", json!({"name": "windows"})), enabled(), Some(Skipped::Windows)),
    ] {
        match (inject(&pod, &labels, &settings(true)).expect("no mistake"), outcome) {
            (Outcome::Injected { warnings, .. }, None) => assert_eq!(warnings, Vec::<String>::new()),
            (Outcome::Skipped(skipped), Some(expected)) => assert_eq!(skipped, expected),
            (other, expected) => panic!("{other:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn mistakes_are_named() {
    let mut same_uid = pod();
    same_uid["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": SIDECAR_UID});
    let error = inject(&same_uid, &enabled(), &settings(true)).expect_err("the sidecar's uid");
    assert!(error.to_string().starts_with("spec.containers[web].securityContext.runAsUser: 2102 is "), "{error}");
    let mut typo = pod();
    typo["metadata"]["annotations"] = json!({"isthmus.dev/interception": "exactly"});
    let error = inject(&typo, &enabled(), &settings(true)).expect_err("a typo");
    assert_eq!(error.to_string(), "annotation isthmus.dev/interception: \"exactly\" is not one of exact, ranges");
}

#[test]
fn what_the_author_cannot_mend_refuses_no_pod() {
    let no_ranges = Settings { ranges: Vec::new(), ..settings(false) };
    assert_eq!(inject(&pod(), &enabled(), &no_ranges), Ok(Outcome::Skipped(Skipped::NoRanges)));
}

#[test]
fn annotations_set_resources_and_options() {
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({
        "isthmus.dev/memory-limit": "1Gi", "isthmus.dev/cpu-limit": "2", "isthmus.dev/existing": "reset", "isthmus.dev/access-log": "true",
        "isthmus.dev/init-cpu-limit": "50m", "isthmus.dev/large-segments": "received",
    });
    let after = injected(&pod, &settings(true));
    let [init, sidecar] = [0, 1].map(|index| &after["spec"]["initContainers"][index]);
    assert_eq!(sidecar["resources"], json!({"requests": {"cpu": "10m", "memory": "24Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}));
    assert_eq!(init["resources"], json!({"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"cpu": "50m", "memory": "32Mi"}}));
    for argument in ["--existing=reset", "--large-segments=received"] {
        assert!(init["args"].as_array().expect("a list").contains(&json!(argument)), "{argument}");
    }
    assert!(sidecar["env"].as_array().expect("a list").contains(&json!({"name": "ISTHMUS_ACCESS_LOG", "value": "-"})));
}

#[test]
fn what_has_no_effect_is_said() {
    let mut pod = pod();
    pod["metadata"] = json!({
        "annotations": {
            "isthmus.dev/acces-log": "true", "isthmus.dev/fail": "open", "isthmus.dev/interception": "exact", "isthmus.dev/traces": false,
            "isthmus.dev/lab-node": "a", "example.com/fail": "x",
        },
        "labels": {"isthmus.dev/inject": "true", "isthmus.dev/injection": "enabled"},
    });
    let warnings = |settings: &Settings| match inject(&pod, &enabled(), settings) {
        Ok(Outcome::Injected { warnings, .. }) => warnings,
        other => panic!("{other:?}"),
    };
    let typo = "annotation isthmus.dev/acces-log has no effect: there is none of that name";
    let value = "annotation isthmus.dev/traces has no effect: false is no text: it needs quotes";
    let label = "label isthmus.dev/injection has no effect: it is a label of namespaces; a pod has isthmus.dev/inject";
    assert_eq!(warnings(&settings(true)), [typo, value, label]);
    let exact = ["fail", "interception"].map(|name| format!("annotation isthmus.dev/{name} has no effect: interception is by ranges here"));
    assert_eq!(warnings(&settings(false)), [typo, &exact[0], &exact[1], value, label]);
}

#[test]
fn a_level_that_forbids_net_admin_is_said() {
    let level = |level: &str| BTreeMap::from([("pod-security.kubernetes.io/enforce".to_owned(), level.to_owned())]);
    assert!(pod_security_warning("shop", &level("baseline")).expect("a warning").contains("\"baseline\""));
    assert_eq!(pod_security_warning("shop", &level("privileged")), None);
    assert_eq!(pod_security_warning("shop", &BTreeMap::new()), None);
}
