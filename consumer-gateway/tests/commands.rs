//! The program as an operator runs it: what stands on standard output, what on standard error, and the exit code.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

const CONFIG: &str = "
listen: 127.0.0.1:0
kafka: {bootstrap_servers: 127.0.0.1:9092}
auth: {local: {private_key_file: local.key, public_key_files: [local.pub]}}
cursors: {key_files: [cursor.key]}
tenants: {payments: {namespaces: [payments]}}
admin: {listen: 127.0.0.1:0}
";

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fairlead-gateway"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn from_nothing_to_a_token() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gateway.yaml"), CONFIG).unwrap();
    let check = |arguments: &[&str], success: bool, out: &str, error: &str| {
        let done = run(folder.path(), arguments);
        assert_eq!(done.status.success(), success, "{arguments:?}: {done:?}");
        assert!(text(&done.stdout).contains(out), "{arguments:?}: {done:?}");
        assert!(text(&done.stderr).contains(error), "{arguments:?}: {done:?}");
        assert!(success || done.stdout.is_empty(), "{arguments:?}: {done:?}");
        done
    };
    check(&["check", "--config", "gateway.yaml"], false, "", "auth.local.public_key_files[0] = local.pub");
    check(&["serve", "--config", "gateway.yaml"], false, "", "cursors.key_files[0] = cursor.key");
    check(&["keys", "init", "--config", "gateway.yaml"], true, "made", "");
    check(&["keys", "init", "--config", "gateway.yaml"], true, "kept", "");
    check(&["check", "--config", "gateway.yaml"], true, "the configuration is well", "");

    let mint = ["token", "mint", "--config", "gateway.yaml", "--tenant", "payments", "--ttl", "24h"];
    let minted = check(&mint, true, "ey", "");
    assert_eq!(text(&minted.stdout).lines().count(), 1, "{minted:?}");
    assert!(minted.stderr.is_empty(), "{minted:?}");
    check(
        &["token", "mint", "--config", "gateway.yaml", "--tenant", "shop", "--ttl", "24h"],
        false,
        "",
        "no tenant \"shop\"",
    );
    check(
        &["token", "mint", "--config", "gateway.yaml", "--tenant", "payments", "--ttl", "31d"],
        false,
        "",
        "auth.local.ttl_max",
    );
    let open: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(folder.path().join("local.key"), open).unwrap();
    check(&mint, true, "ey", "warning: ");
    check(&["keys", "init", "--config", "gateway.yaml"], true, "kept", "can be read by others");
    check(&["version"], true, env!("CARGO_PKG_VERSION"), "");

    std::fs::write(
        folder.path().join("gateway.yaml"),
        CONFIG.replace("payments]", "Payments]").replace("auth:", "author: 1\nauth:"),
    )
    .unwrap();
    let faulty = check(&["check", "--config", "gateway.yaml"], false, "", "tenants.payments.namespaces[0]");
    assert!(text(&faulty.stderr).contains("author: unknown key"), "{faulty:?}");
    assert!(!text(&faulty.stderr).contains("panicked"), "{faulty:?}");
    check(&["check", "--config", "absent.yaml"], false, "", "absent.yaml");
}
