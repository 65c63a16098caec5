//! What the pods may do: no privilege, one writable place, and time enough to end.

use fairlead_integration::component::Component;
use serde_json::{Value, json};

use super::Rendered;

#[test]
fn pods_run_without_privilege() {
    if !Component::Helm.usable() {
        return;
    }
    for rendered in Rendered::all() {
        for program in ["router", "gateway"] {
            let (what, spec) = (format!("{}: {program}", rendered.set), &rendered.pod(program)["spec"]);
            for (key, wanted) in [
                ("enableServiceLinks", json!(false)),
                ("hostNetwork", Value::Null),
                ("hostPID", Value::Null),
                ("hostIPC", Value::Null),
            ] {
                assert_eq!(spec[key], wanted, "{what}: {key}");
            }
            assert_eq!(spec["securityContext"]["seccompProfile"], json!({"type": "RuntimeDefault"}), "{what}");
            let containers = spec["containers"].as_array().unwrap();
            assert_eq!((containers.len(), spec.get("initContainers")), (1, None), "{what}");
            let expected = json!({
                "privileged": false,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            });
            assert_eq!(containers[0]["securityContext"], expected, "{what}");
            assert!(containers[0]["resources"]["requests"]["memory"].is_string(), "{what}");
        }
        // Only its owner may link a log file: root, without a capability.
        assert_eq!(rendered.pod("router")["spec"]["securityContext"]["runAsUser"], 0);
        let gateway = &rendered.pod("gateway")["spec"]["securityContext"];
        assert_eq!((&gateway["runAsNonRoot"], &gateway["runAsUser"]), (&json!(true), &json!(65532)));
    }
}

#[test]
fn one_place_of_the_node_is_writable_and_the_gateway_sees_none() {
    if !Component::Helm.usable() {
        return;
    }
    for rendered in Rendered::all() {
        let spec = &rendered.pod("router")["spec"];
        let volumes = spec["volumes"].as_array().unwrap();
        let of_node =
            |name: &Value| volumes.iter().find(|volume| volume["name"] == *name).unwrap().pointer("/hostPath/path");
        let mut writable = Vec::new();
        for mount in spec["containers"][0]["volumeMounts"].as_array().unwrap() {
            if let Some(path) = of_node(&mount["name"]) {
                // The same path inside, or Docker's symlinks would lead nowhere; what is mounted on the node later is seen.
                assert_eq!((path, &mount["mountPropagation"]), (&mount["mountPath"], &json!("HostToContainer")));
            }
            if mount["readOnly"] != true {
                writable.push(mount["mountPath"].as_str().unwrap());
            }
        }
        let config = super::configuration::file(&rendered, "router");
        let [one] = writable[..] else { panic!("{}: {writable:?}", rendered.set) };
        for key in ["/state_dir", "/logs/pods_dir"] {
            let path = config.pointer(key).unwrap().as_str().unwrap();
            assert!(path.starts_with(&format!("{one}/")), "{}: {path} is not under the one mount {one}", rendered.set);
        }

        let gateway = &rendered.pod("gateway")["spec"];
        assert!(gateway["volumes"].as_array().unwrap().iter().all(|volume| volume.get("hostPath").is_none()));
        assert!(
            gateway["containers"][0]["volumeMounts"].as_array().unwrap().iter().all(|mount| mount["readOnly"] == true)
        );
    }
}

#[test]
fn there_is_time_to_end_and_probes_reach_the_admin_port() {
    if !Component::Helm.usable() {
        return;
    }
    for rendered in Rendered::all() {
        let spec = &rendered.pod("router")["spec"];
        let grace = spec["terminationGracePeriodSeconds"].as_u64().unwrap();
        let config = super::configuration::file(&rendered, "router");
        let deadline = config["shutdown_deadline"].as_str().unwrap();
        assert_eq!(deadline.strip_suffix('s').unwrap().parse::<u64>().unwrap() + 10, grace, "{}", rendered.set);
        for program in ["router", "gateway"] {
            let container = &rendered.pod(program)["spec"]["containers"][0];
            let listen = super::configuration::file(&rendered, program)["admin"]["listen"].as_str().unwrap().to_owned();
            let (address, port) = listen.rsplit_once(':').unwrap();
            assert!(["0.0.0.0", "[::]"].contains(&address), "{}: the kubelet cannot reach {listen}", rendered.set);
            let ports = container["ports"].as_array().unwrap();
            let admin = ports.iter().find(|known| known["name"] == "admin").unwrap();
            assert_eq!(admin["containerPort"].to_string(), port);
            for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
                assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "admin"}), "{program}");
            }
        }
    }
}

#[test]
fn another_configuration_makes_other_pods() {
    if !Component::Helm.usable() {
        return;
    }
    let checksum = |rendered: &Rendered, program: &str| {
        rendered.pod(program)["metadata"]["annotations"]["checksum/config"].to_string()
    };
    let with = |what: &str| {
        let arguments = ["--set".to_owned(), what.to_owned()];
        Rendered { set: "changed", objects: fairlead_integration::helm::objects(&arguments).unwrap() }
    };
    let (first, same) = (with("router.maxUnavailable=2"), with("router.maxUnavailable=3"));
    for program in ["router", "gateway"] {
        assert_eq!(checksum(&first, program), checksum(&same, program));
        assert_ne!(checksum(&first, program), checksum(&with("config.log.filter=debug"), program));
    }
    let router_only = with("router.config.hold.bytes_max=1GiB");
    assert_ne!(checksum(&first, "router"), checksum(&router_only, "router"));
    assert_eq!(checksum(&first, "gateway"), checksum(&router_only, "gateway"));
}
