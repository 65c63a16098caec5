//! The tables of tokens that must and must not be believed. Tokens are made by hand here, with the cryptographic library alone, so that the
//! library that checks them does not also make them.

mod world;

use std::path::Path;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use self::world::{World, encode, now};
use super::*;

const ISSUER: &str = "https://issuer.example";
const OTHER: &str = "https://other.example";

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "fairlead", "sub": "alice", "exp": now() + 600, "groups": ["team-payments"]})
}

/// `value` with `changes` laid over it; `null` removes a member.
fn with(mut value: Value, changes: Value) -> Value {
    for (name, change) in changes.as_object().unwrap() {
        match change {
            Value::Null => drop(value.as_object_mut().unwrap().remove(name)),
            _ => value[name.as_str()] = change.clone(),
        }
    }
    value
}

fn verdict(result: Result<Caller, AuthenticateError>) -> String {
    result.map_or_else(|error| error.reason().to_owned(), |caller| caller.identity.subject)
}

#[test]
fn headers() {
    let world = World::new();
    let authenticator = world.authenticator();
    let check = |header: Value, signed_as: &str, expected: &str| {
        let token = world.token(&header, &claims(), signed_as);
        assert_eq!(verdict(authenticator.authenticate(&token)), expected, "{header} signed as {signed_as}");
    };
    check(json!({"alg": "RS256", "kid": "one"}), "RS256", "alice");
    check(json!({"alg": "RS256", "kid": "one", "typ": "JWT"}), "RS256", "alice");
    check(json!({"alg": "RS256", "kid": "one", "typ": "at+jwt"}), "RS256", "alice");
    check(json!({"alg": "RS256", "kid": "one", "typ": "application/at+JWT"}), "RS256", "alice");
    check(json!({"alg": "ES256", "kid": "two"}), "ES256", "alice");
    check(json!({"alg": "PS256", "kid": "ps"}), "PS256", "alice");

    for none in ["none", "None", "nOnE", "NONE", ""] {
        check(json!({"alg": none, "kid": "one"}), "RS256", "algorithm_refused");
        check(json!({"alg": none}), "RS256", "algorithm_refused");
    }
    check(json!({"alg": "HS256", "kid": "one"}), "HS256", "algorithm_refused");
    check(json!({"alg": "HS256"}), "HS256", "algorithm_refused");
    check(json!({"alg": "RS512", "kid": "one"}), "RS256", "algorithm_refused");
    check(json!({"alg": "rs256", "kid": "one"}), "RS256", "algorithm_refused");
    check(json!({"alg": "EdDSA", "kid": "one"}), "EdDSA", "algorithm_refused");
    check(json!({"alg": ["RS256"], "kid": "one"}), "RS256", "malformed");
    check(json!({"kid": "one"}), "RS256", "malformed");
    check(json!({"alg": "RS256", "kid": "ps"}), "RS256", "key_unknown");
    check(json!({"alg": "PS256", "kid": "one"}), "PS256", "key_unknown");
    check(json!({"alg": "ES256", "kid": "one"}), "ES256", "key_unknown");
    check(json!({"alg": "RS256", "kid": "two"}), "ES256", "key_unknown");
    check(json!({"alg": "RS256", "kid": "one"}), "PS256", "signature_wrong");
    check(json!({"alg": "RS256", "kid": "one"}), "HS256", "signature_wrong");

    check(json!({"alg": "RS256"}), "RS256", "key_not_named");
    for id in ["", "ONE", "one ", "../one", "/dev/null", "one\u{0}", "x' UNION SELECT 'one", "three"] {
        check(json!({"alg": "RS256", "kid": id}), "RS256", "key_unknown");
    }
    check(json!({"alg": "RS256", "kid": 1}), "RS256", "malformed");
    check(json!({"alg": "RS256", "kid": "k".repeat(NAME_BYTES_MAX + 1)}), "RS256", "malformed");

    check(json!({"alg": "RS256", "kid": "one", "crit": ["exp"]}), "RS256", "critical_header");
    check(json!({"alg": "RS256", "kid": "one", "crit": []}), "RS256", "critical_header");
    check(json!({"alg": "RS256", "kid": "one", "crit": ["b64"], "b64": false}), "RS256", "critical_header");
    for kind in [json!("logout+jwt"), json!("secevent+jwt"), json!("dpop+jwt"), json!("JWE"), json!(""), json!(7)] {
        check(json!({"alg": "RS256", "kid": "one", "typ": kind}), "RS256", "type_refused");
    }
}

#[test]
fn keys_in_the_header_are_not_used() {
    let world = World::new();
    let stranger = World::new();
    let authenticator = world.authenticator();
    let foreign = [
        json!({"jwk": stranger.rsa_jwk("one")}),
        json!({"jku": "https://evil.example/jwks.json"}),
        json!({"x5u": "https://evil.example/cert.pem"}),
        json!({"x5c": ["MIIB"]}),
    ];
    for extra in foreign {
        let header = with(json!({"alg": "RS256", "kid": "one"}), extra.clone());
        let forged = stranger.token(&header, &claims(), "RS256");
        assert_eq!(verdict(authenticator.authenticate(&forged)), "signature_wrong", "{header}");
        let real = world.token(&header, &claims(), "RS256");
        assert_eq!(verdict(authenticator.authenticate(&real)), "alice", "{header}");
    }
}

#[test]
fn claims_table() {
    let world = World::new();
    let authenticator = world.authenticator();
    let check = |changes: Value, expected: &str| {
        let token = world.token(&json!({"alg": "RS256", "kid": "one"}), &with(claims(), changes.clone()), "RS256");
        assert_eq!(verdict(authenticator.authenticate(&token)), expected, "{changes}");
    };
    check(json!({}), "alice");

    check(json!({"aud": "logs"}), "alice");
    check(json!({"aud": ["x", "fairlead"]}), "alice");
    check(json!({"aud": null}), "claim_missing");
    check(json!({"aud": "Fairlead"}), "audience_refused");
    check(json!({"aud": "fairlead "}), "audience_refused");
    check(json!({"aud": "fair"}), "audience_refused");
    check(json!({"aud": []}), "audience_refused");
    check(json!({"aud": ["x"]}), "audience_refused");
    check(json!({"aud": ["fairlead", 1]}), "claim_missing");
    check(json!({"aud": {"fairlead": true}}), "claim_missing");

    check(json!({"iss": null}), "claim_missing");
    check(json!({"iss": [ISSUER]}), "claim_invalid");
    for issuer in [
        "https://issuer.example/",
        "https://ISSUER.example",
        "http://issuer.example",
        "issuer.example",
        "",
        " https://issuer.example",
    ] {
        check(json!({"iss": issuer}), "issuer_unknown");
    }

    check(json!({"exp": now() + 1}), "alice");
    check(json!({"exp": now() - 5}), "alice");
    check(json!({"exp": now() as f64 + 0.5}), "alice");
    check(json!({"exp": now() - 12}), "expired");
    check(json!({"exp": 0}), "expired");
    check(json!({"exp": null}), "claim_missing");
    let no_date = [json!((now() + 600).to_string()), json!(-1), json!(true)];
    for date in &no_date {
        check(json!({"exp": date}), "claim_missing");
    }
    for date in [json!([now() + 600]), json!({"exp": now() + 600})] {
        check(json!({"exp": date}), "malformed");
        check(json!({"nbf": date}), "malformed");
        check(json!({"iat": date}), "claim_invalid");
    }
    for date in [json!(u64::MAX), json!(1e300), json!(253_402_300_800_u64)] {
        let reason = verdict(authenticator.authenticate(&world.token(
            &json!({"alg": "RS256", "kid": "one"}),
            &with(claims(), json!({"exp": date})),
            "RS256",
        )));
        assert!(["claim_invalid", "claim_missing"].contains(&reason.as_str()), "{date}: {reason}");
    }

    check(json!({"nbf": now()}), "alice");
    check(json!({"nbf": now() + 5}), "alice");
    check(json!({"nbf": now() + 60}), "not_yet_valid");
    for date in &no_date {
        check(json!({"nbf": date}), "claim_invalid");
        check(json!({"iat": date}), "claim_invalid");
    }

    check(json!({"sub": null}), "claim_missing");
    check(json!({"sub": 7}), "claim_missing");
    check(json!({"sub": ""}), "claim_invalid");
    check(json!({"sub": "a\nlevel=INFO forged"}), "claim_invalid");
    check(json!({"sub": "a".repeat(NAME_BYTES_MAX + 1)}), "claim_invalid");
    check(json!({"groups": null}), "alice");
    check(json!({"groups": "one"}), "alice");
    check(json!({"groups": ["one", 2]}), "claim_invalid");
    check(json!({"groups": {"one": true}}), "claim_invalid");
    check(json!({"groups": [""]}), "claim_invalid");
    check(json!({"tenant": "payments"}), "alice");
}

#[test]
fn nulls_and_repeated_members_are_refused() {
    let world = World::new();
    let authenticator = world.authenticator();
    let header = r#"{"alg":"RS256","kid":"one"}"#;
    let exp = now() + 600;
    let check = |header: &str, claims: String, expected: &str| {
        let token = world.token_of_text(header, &claims, "RS256");
        assert_eq!(verdict(authenticator.authenticate(&token)), expected, "{header} {claims}");
    };
    let rest = format!(r#""iss":"{ISSUER}","aud":"fairlead","exp":{exp}"#);
    check(header, format!(r#"{{"sub":"alice",{rest}}}"#), "alice");
    check(header, format!(r#"{{"sub":"alice","sub":"root",{rest}}}"#), "malformed");
    check(header, format!(r#"{{"sub":"alice","s\u0075b":"root",{rest}}}"#), "malformed");
    check(header, format!(r#"{{"sub":"alice",{rest},"exp":9999999999}}"#), "malformed");
    check(header, format!(r#"{{"sub":"alice",{rest},"x":{{"a":1,"a":2}}}}"#), "malformed");
    check(header, format!(r#"{{"sub":"alice",{rest},"nbf":null}}"#), "claim_invalid");
    check(header, format!(r#"{{"sub":null,{rest}}}"#), "claim_missing");
    check(r#"{"alg":"none","alg":"RS256","kid":"one"}"#, format!(r#"{{"sub":"alice",{rest}}}"#), "malformed");
    check(r#"{"alg":"RS256","kid":"one","crit":null}"#, format!(r#"{{"sub":"alice",{rest}}}"#), "critical_header");
    check("[]", format!(r#"{{"sub":"alice",{rest}}}"#), "malformed");
    check(header, "[]".to_owned(), "malformed");
    check(header, "\"text\"".to_owned(), "malformed");
    check(header, format!(r#"{{"sub":"alice",{rest}}} x"#), "malformed");
    check(header, format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200)), "malformed");
}

#[test]
fn texts_that_are_no_token() {
    let world = World::new();
    let authenticator = world.authenticator();
    let good = world.token(&json!({"alg": "RS256", "kid": "one"}), &claims(), "RS256");
    let parts: Vec<&str> = good.split('.').collect();
    let (header, body, signature) = (parts[0], parts[1], parts[2]);
    let check =
        |token: &str, expected: &str| assert_eq!(verdict(authenticator.authenticate(token)), expected, "{token}");
    check(&good, "alice");
    for text in ["", ".", "..", "...", "a.b.c", "null", "{}", "é.é.é", "a b c", "Bearer x", "\u{0}"] {
        check(text, "malformed");
    }
    check(&format!("{header}.{body}"), "malformed");
    check(&format!("{header}.{body}."), "malformed");
    check(&format!("{header}..{signature}"), "malformed");
    check(&format!(".{body}.{signature}"), "malformed");
    check(&format!("{good}.{signature}"), "malformed");
    check(&format!(" {good}"), "malformed");
    check(&format!("{header}=.{body}.{signature}"), "malformed");
    check(&format!("{header}.{body}.{signature}="), "malformed");
    check(&format!("{good}\n"), "malformed");
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    check(&format!("{header}.{body}.{}", encode(&bytes[1..])), "signature_wrong");
    check(&format!("{header}.{body}.{}", encode([&bytes[..], &[0]].concat())), "signature_wrong");
    check(
        &format!("{header}.{}.{signature}", encode(claims().to_string().replace("alice", "admin"))),
        "signature_wrong",
    );
    check(&format!("{}.{body}.{signature}", encode(r#"{"alg":"RS256","kid":"one","x":1}"#)), "signature_wrong");

    let padded = |bytes: usize| {
        let base =
            world.token(&json!({"alg": "RS256", "kid": "one"}), &with(claims(), json!({"pad": ""})), "RS256").len();
        let pad = "p".repeat((bytes - base) / 4 * 3);
        world.token(&json!({"alg": "RS256", "kid": "one"}), &with(claims(), json!({"pad": pad})), "RS256")
    };
    let largest = padded(TOKEN_BYTES_MAX);
    assert!(largest.len() <= TOKEN_BYTES_MAX && largest.len() > TOKEN_BYTES_MAX - 8, "{}", largest.len());
    check(&largest, "alice");
    check(&padded(TOKEN_BYTES_MAX + 64), "too_long");
    check(&"a".repeat(10 << 20), "too_long");
}

#[test]
fn foreign_keys_and_issuers_stay_apart() {
    let world = World::new();
    let stranger = World::new();
    let authenticator = world.authenticator();
    let header = json!({"alg": "RS256", "kid": "one"});
    assert_eq!(verdict(authenticator.authenticate(&stranger.token(&header, &claims(), "RS256"))), "signature_wrong");

    // The same `kid` and `sub` from two issuers: each has its own key, and they are two callers.
    let other_claims = with(claims(), json!({"iss": OTHER}));
    let other = authenticator
        .authenticate(&world.token(&json!({"alg": "EdDSA", "kid": "one"}), &other_claims, "EdDSA"))
        .unwrap();
    let first = authenticator.authenticate(&world.token(&header, &claims(), "RS256")).unwrap();
    assert_eq!(first.identity.subject, other.identity.subject);
    assert_ne!(first.identity, other.identity);
    assert_eq!(other.identity.authority, Authority::Issuer(OTHER.to_owned()));

    // One issuer's key under the other's name.
    let crossed = world.token(&json!({"alg": "EdDSA", "kid": "one"}), &claims(), "EdDSA");
    assert_eq!(verdict(authenticator.authenticate(&crossed)), "algorithm_refused");
    let crossed = world.token(&header, &other_claims, "RS256");
    assert_eq!(verdict(authenticator.authenticate(&crossed)), "algorithm_refused");
    // An issuer cannot speak as the local authority, nor can its token name a tenant.
    let as_local = with(claims(), json!({"iss": local::ISSUER, "tenant": "payments", "jti": "x"}));
    let kid = world.local.key_id();
    assert_eq!(
        verdict(authenticator.authenticate(&world.token(&json!({"alg": "EdDSA", "kid": kid}), &as_local, "EdDSA"))),
        "signature_wrong"
    );
    let named = authenticator
        .authenticate(&world.token(&header, &with(claims(), json!({"tenant": "payments"})), "RS256"))
        .unwrap();
    assert_eq!(named.identity.tenant, None);
}

#[test]
fn configured_claims_name_the_caller() {
    let world = World::new();
    let mut settings = world.settings();
    settings.issuers[0].subject_claim = "email".to_owned();
    settings.issuers[0].groups_claim = "https://issuer.example/roles".to_owned();
    let authenticator = Authenticator::new(&settings, Arc::new(|_, _| {})).unwrap();
    let check = |changes: Value, expected: &str| {
        let token = world.token(&json!({"alg": "RS256", "kid": "one"}), &with(claims(), changes.clone()), "RS256");
        assert_eq!(verdict(authenticator.authenticate(&token)), expected, "{changes}");
    };
    check(json!({"email": "a@example.org"}), "a@example.org");
    check(json!({"email": "a@example.org", "email_verified": true}), "a@example.org");
    check(json!({"email": "a@example.org", "email_verified": false}), "claim_invalid");
    check(json!({"email": "a@example.org", "email_verified": "true"}), "claim_invalid");
    check(json!({"email": "a@example.org", "sub": null}), "claim_missing");
    check(json!({}), "claim_missing");
    let token = world.token(
        &json!({"alg": "RS256", "kid": "one"}),
        &with(claims(), json!({"email": "a@example.org", "https://issuer.example/roles": ["r1", "r2"]})),
        "RS256",
    );
    assert_eq!(authenticator.authenticate(&token).unwrap().identity.groups, ["r1", "r2"]);
}

#[test]
fn local_tokens() {
    let world = World::new();
    let authenticator = world.authenticator();
    let grant = local::Grant { tenant: "payments", subject: "ci", lifetime: Duration::from_secs(3600) };
    let now = SystemTime::now();
    let token = world.local.mint(&grant, now).unwrap();
    let caller = authenticator.authenticate(&token).unwrap();
    assert_eq!(
        caller.identity,
        Identity {
            authority: Authority::Local,
            subject: "ci".to_owned(),
            groups: vec![],
            tenant: Some("payments".to_owned())
        }
    );
    let left = caller.expires.unwrap().duration_since(now).unwrap();
    assert!(left > Duration::from_secs(3600) && left <= Duration::from_secs(3600) + LEEWAY, "{left:?}");
    assert!(caller.token_id.is_some_and(|id| id.len() == 36));

    let early = world.local.mint(&grant, now - Duration::from_secs(3700)).unwrap();
    assert_eq!(verdict(authenticator.authenticate(&early)), "expired");
    let late = world.local.mint(&grant, now + Duration::from_secs(100)).unwrap();
    assert_eq!(verdict(authenticator.authenticate(&late)), "not_yet_valid");
    let stranger = local::Signer::generate().unwrap().mint(&grant, now).unwrap();
    assert_eq!(verdict(authenticator.authenticate(&stranger)), "key_unknown");
    let nameless = local::Grant { tenant: "", ..grant };
    assert_eq!(verdict(authenticator.authenticate(&world.local.mint(&nameless, now).unwrap())), "claim_invalid");

    let without = Settings { local_public_key_files: vec![], ..world.settings() };
    let without = Authenticator::new(&without, Arc::new(|_, _| {})).unwrap();
    assert_eq!(verdict(without.authenticate(&token)), "issuer_unknown");
}

#[test]
fn key_files_are_read_again_and_the_last_good_ones_kept() {
    let world = World::new();
    type Event = (String, Result<usize, ()>);
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let record = Arc::clone(&events);
    let hook: KeyFileHook = Arc::new(move |issuer, result| record.lock().unwrap().push((issuer.to_owned(), result)));
    let authenticator = Authenticator::new(&world.settings(), hook).unwrap();
    let news = || std::mem::take(&mut *events.lock().unwrap());
    assert_eq!(news(), [(ISSUER.to_owned(), Ok(3)), (OTHER.to_owned(), Ok(1))]);

    let by_one = world.token(&json!({"alg": "RS256", "kid": "one"}), &claims(), "RS256");
    let by_new = world.token(&json!({"alg": "RS256", "kid": "new"}), &claims(), "RS256");
    let check = |one: &str, new: &str, expected: &[Result<usize, ()>]| {
        authenticator.refresh();
        assert_eq!(verdict(authenticator.authenticate(&by_one)), one);
        assert_eq!(verdict(authenticator.authenticate(&by_new)), new);
        let seen: Vec<_> = news()
            .into_iter()
            .map(|(issuer, result)| {
                assert_eq!(issuer, ISSUER);
                result
            })
            .collect();
        assert_eq!(seen, expected);
    };
    check("alice", "key_unknown", &[]);
    world.write("jwks.json", &json!({"keys": [world.rsa_jwk("one"), world.rsa_jwk("new")]}));
    check("alice", "alice", &[Ok(2)]);
    std::fs::write(world.folder.path().join("jwks.json"), "{broken").unwrap();
    check("alice", "alice", &[Err(())]);
    check("alice", "alice", &[]);
    std::fs::remove_file(world.folder.path().join("jwks.json")).unwrap();
    check("alice", "alice", &[Err(())]);
    check("alice", "alice", &[]);
    world.write("jwks.json", &json!({"keys": [world.rsa_jwk("new")]}));
    check("key_unknown", "alice", &[Ok(1)]);
    replace_by_rename(&world, "jwks.json", &json!({"keys": [world.rsa_jwk("one")]}));
    check("alice", "key_unknown", &[Ok(1)]);
}

fn replace_by_rename(world: &World, name: &str, content: &Value) {
    world.write("new", content);
    let at = |name: &str| world.folder.path().join(name);
    std::fs::rename(at("new"), at(name)).unwrap();
}

#[test]
fn bad_key_files_are_all_named_at_start() {
    let world = World::new();
    let mut settings = world.settings();
    settings.issuers[0].jwks_file = world.folder.path().join("absent.json");
    std::fs::write(world.folder.path().join("other.json"), r#"{"keys":[]}"#).unwrap();
    std::fs::write(world.folder.path().join("local.pub"), world.local.private_pem()).unwrap();
    let errors = Authenticator::new(&settings, Arc::new(|_, _| {})).err().unwrap();
    let texts: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
    let path = |name: &str| Path::new(world.folder.path()).join(name).display().to_string();
    assert_eq!(texts.len(), 3, "{texts:?}");
    for (text, name) in texts.iter().zip(["absent.json", "other.json", "local.pub"]) {
        assert!(text.contains(&path(name)), "{text}");
        assert!(!text.contains("PRIVATE"), "{text}");
    }
}

#[test]
fn refusals_never_show_the_token() {
    let world = World::new();
    let authenticator = world.authenticator();
    let token = world.token(&json!({"alg": "x".repeat(5000), "kid": "one"}), &claims(), "RS256");
    let error = authenticator.authenticate(&token).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
    let signature = token.rsplit('.').next().unwrap();
    assert!(!format!("{error} {error:?}").contains(signature));
}

fn a_token_s_part() -> impl Strategy<Value = String> {
    let json = prop_oneof![
        Just(r#"{"alg":"RS256","kid":"one"}"#.to_owned()),
        "\\PC{0,40}",
        r#"\{"(alg|kid|typ|crit|iss|exp|sub|aud)":("[a-z]{0,3}"|-?[0-9]{1,25}|null|\[\]|1e999)(,"(iss|exp)":("[a-z]{0,3}"|[0-9]{1,20}))?\}"#,
    ];
    prop_oneof![json.prop_map(encode), "[A-Za-z0-9_=-]{0,20}", "\\PC{0,20}"]
}

proptest! {
    #[test]
    fn any_text_is_refused_without_a_panic(parts in proptest::collection::vec(a_token_s_part(), 0..5)) {
        thread_local! {
            static AUTHENTICATOR: Authenticator = World::new().authenticator();
        }
        AUTHENTICATOR.with(|authenticator| assert!(authenticator.authenticate(&parts.join(".")).is_err()));
    }

    #[test]
    fn any_key_set_is_judged_without_a_panic(text in r#"\{"keys":\[(\{"kty":"(RSA|EC|OKP|x)"(,"(n|e|x|y|crv|alg|use|kid|key_ops)":("[A-Za-z0-9_-]{0,8}"|P-256|\[\]|7)){0,6}\},?){0,3}\]\}"#) {
        let _ = KeySet::parse(text.as_bytes(), &PUBLIC_KEY_ALGORITHMS);
    }
}
