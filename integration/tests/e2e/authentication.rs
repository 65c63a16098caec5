//! Who gets in: a table of tokens, good and bad, each asked with at every door.

use fairlead_integration::broker::Kind;
use fairlead_integration::identity::{Issuer, encoded, seconds_now};
use fairlead_integration::stage::Stage;
use serde_json::{Value, json};

#[test]
fn only_good_tokens_open_doors() {
    let _turn = super::turn();
    let stage = Stage::started(Kind::Tansu).unwrap();
    let issuer = &stage.issuer;
    let good = issuer.claims("alice", &["team-payments"]);
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        claims
    };
    let without = |key: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(key);
        claims
    };
    let sign = |claims: &Value| issuer.sign(claims).unwrap();
    let now = seconds_now();

    let minted = stage.gateway.ask(&["token", "mint", "--tenant", "payments", "--ttl", "1h"]).unwrap();
    for token in [sign(&good), sign(&with("aud", json!(["other", "fairlead"]))), minted.clone()] {
        let me = stage.anyone().with_token(&token).get("/v1/me").unwrap();
        assert_eq!(me.status, 200, "{}", me.body);
    }

    let same_key_id = Issuer::new(&issuer.name, "key-1").unwrap();
    let other_key_id = Issuer::new(&issuer.name, "key-2").unwrap();
    let other_issuer = Issuer::new("https://elsewhere.example", "key-1").unwrap();
    let other_gateway = Stage::prepared(Kind::Tansu, &fairlead_integration::stage::Wishes::default()).unwrap();
    let foreign_minted = other_gateway.gateway.ask(&["token", "mint", "--tenant", "payments", "--ttl", "1h"]).unwrap();
    let token = sign(&good);
    let (head_and_claims, signature) = token.rsplit_once('.').unwrap();
    let (head, claims_part) = head_and_claims.split_once('.').unwrap();
    let more_groups = encoded(&with("groups", json!(["team-payments", "team-shop"])));
    let bad = [
        ("no token at all", String::new()),
        ("not a token", "abc".to_owned()),
        ("three empty parts", "..".to_owned()),
        ("signature cut off", format!("{head_and_claims}.")),
        ("claims changed after signing", format!("{head}.{more_groups}.{signature}")),
        (
            "signature of other claims",
            format!("{head}.{claims_part}.{}", sign(&with("sub", json!("bob"))).rsplit_once('.').unwrap().1),
        ),
        ("alg none", issuer.unsigned(&good)),
        ("HMAC with the public key", issuer.confused(&good).unwrap()),
        ("foreign key under our key id", same_key_id.sign(&good).unwrap()),
        ("unknown key id", other_key_id.sign(&good).unwrap()),
        ("issuer that nobody trusts", other_issuer.sign(&other_issuer.claims("alice", &["team-payments"])).unwrap()),
        ("trusted key, other issuer", sign(&with("iss", json!("https://elsewhere.example")))),
        ("expired", sign(&with("exp", json!(now - 120)))),
        ("not yet valid", sign(&with("nbf", json!(now + 600)))),
        ("expiry as text", sign(&with("exp", json!("tomorrow")))),
        ("no expiry", sign(&without("exp"))),
        ("audience of another service", sign(&with("aud", json!("other")))),
        ("no audience", sign(&without("aud"))),
        ("no issuer", sign(&without("iss"))),
        ("no subject", sign(&without("sub"))),
        ("minted by another gateway's key", foreign_minted),
    ];
    let doors = ["/v1/me", "/v1/namespaces", "/v1/namespaces/payments/logs", "/v1/namespaces/shop/logs?follow=true"];
    let mut faults = Vec::new();
    for (what, token) in &bad {
        let client = if token.is_empty() { stage.anyone() } else { stage.anyone().with_token(token) };
        for door in doors {
            let answer = client.get(door).unwrap();
            let problem = answer.headers.get("content-type").is_some_and(|kind| kind == "application/problem+json");
            if answer.status != 401 || !problem || !answer.headers.contains_key("www-authenticate") {
                faults.push(format!("{what} at {door}: {} {:?} {}", answer.status, answer.headers, answer.body));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    no_secret_in_the_log(&stage, &[token.clone(), minted]);
}

/// A token never shows in the program's own log, whole or its signature.
fn no_secret_in_the_log(stage: &Stage, tokens: &[String]) {
    let log = std::fs::read_to_string(stage.gateway.log()).unwrap();
    for token in tokens {
        let signature = token.rsplit('.').next().unwrap();
        assert!(!log.contains(signature), "a token's signature is in the gateway's log");
    }
}

#[test]
fn an_unknown_parameter_is_named() {
    let _turn = super::turn();
    let stage = Stage::started(Kind::Tansu).unwrap();
    let client = stage.team("payments").unwrap();
    for (query, word) in [
        ("?sinse=5m", "sinse"),
        ("?since=5m&colour=red", "colour"),
        ("?since=yesterday", "since"),
        ("?limit=-1", "limit"),
        ("?grep=%5B", "grep"),
        ("?cursor=abc", "cursor"),
        ("?stream=stdin", "stream"),
    ] {
        let answer = client.get(&format!("/v1/namespaces/payments/logs{query}")).unwrap();
        assert_eq!(answer.status, 400, "{query}: {}", answer.body);
        assert!(answer.body.contains(word), "{query}: {}", answer.body);
        assert_eq!(answer.headers.get("content-type").unwrap(), "application/problem+json");
    }
}
