use super::*;

fn config(text: &str) -> CachesConfig {
    CachesConfig::from_toml(text).unwrap()
}

/// What is wrong with the settings of a cache.
fn refused(settings: &str) -> String {
    let config = config(&format!("[caches.default]\n{settings}"));
    let nothing = |_: &str| None;
    config.builders_in(nothing).unwrap_err().to_string()
}

#[test]
fn every_setting_can_be_said_in_text_and_is_none_that_the_builder_lacks() {
    let text = r#"
        [unrelated]
        caches = 1.5
        [caches.default]
        url = "redis://user:hunter2@localhost/1"
        prefix = "shop"
        ttl = "1h30m"
        codec = "json"
        l1 = "64 MiB"
        max_silence = "2s"
        lazy = true
        command_timeout = "100ms"
        connect_timeout = "5s"
        lease_ttl = "4s"
        fence_ttl = "20s"
        max_loads = 8
        load_wait = "1s"
        max_value_bytes = "10 kB"
        compress_over = 2048
        write_policy = "strict"
        plain_transactions = "refuse"
        only_linked_entities = true
        [caches.sentinel]
        sentinels = ["redis://a:1", "redis://b:2"]
        primary = "mymaster"
        [caches.cluster]
        cluster = "redis://a:1, redis://b:2"
        [caches.memory]
        memory = "1 MiB"
    "#;
    let text = text.replace("        ", "");
    let text = if cfg!(feature = "lz4") {
        text
    } else {
        text.replace("compress_over = 2048\n", "")
    };
    let all = config(&text);
    let builders = all.builders_in(|_| None).unwrap();
    let names: Vec<_> = builders.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["cluster", "default", "memory", "sentinel"]);
    let (_, builder) = &builders[1];
    let shown = format!("{builder:?}");
    for said in [
        "prefix: \"shop\"",
        "ttl: 5400s",
        "codec: Json",
        "lease_ttl: 4s",
        "fence_ttl: 20s",
        "write_policy: Strict",
        "plain_transactions: Refuse",
        "only_linked_entities: true",
        "max_loads: 8",
        "load_wait: 1s",
        "max_value_bytes: 10000",
        "l1: Some(67108864)",
        "max_silence: 2s",
    ] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
    for text in [shown, format!("{all:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_with_what_is_allowed() {
    for (settings, said) in [
        (
            "ttl = \"5 parsecs\"",
            "`ttl` of the cache `default`: `5 parsecs`; allowed is a duration, as in `250ms`, `5m`, `1h30m`",
        ),
        (
            "ttl = 300",
            "`ttl` of the cache `default`: `300`; allowed is a duration",
        ),
        ("l1 = \"64 MB/s\"", "allowed is a number of bytes"),
        (
            "l1 = \"99999999999999999999\"",
            "allowed is a number of bytes",
        ),
        (
            "lazy = \"yes\"",
            "`lazy` of the cache `default`: `yes`; allowed is `true` or `false`",
        ),
        ("codec = \"pickle\"", "allowed is `messagepack` or `json`"),
        (
            "max_loads = [\"a\"]",
            "`max_loads` of the cache `default`: a list; allowed is a number",
        ),
        (
            "tll = \"5m\"",
            "`tll` of the cache `default`: there is no such setting; allowed are `url`, `cluster`",
        ),
        (
            "timeout = 300",
            "there is no such setting; it is called `ttl` here",
        ),
        (
            "max_connections = 50",
            "leave it out: one connection carries all requests",
        ),
        (
            "url = \"\"",
            "`url` of the cache `default`: its value (not shown here: it may hold a password); allowed is a URL",
        ),
        (
            "url = \"redis://a\"\nmemory = 1",
            "`url` of the cache `default`: beside `memory`; a cache has one place",
        ),
        (
            "primary = \"a\"",
            "`primary` of the cache `default`: alone; it stands with `sentinels`",
        ),
        (
            "sentinels = \"redis://a\"",
            "`sentinels` of the cache `default`: alone; they stand with `primary`",
        ),
        (
            "url = \"${NO_SUCH}\"",
            "`url` of the cache `default`: the variable `NO_SUCH` is not set; allowed is a URL",
        ),
        ("url = \"${NO_SUCH\"", "a `${` without its `}`"),
    ] {
        let text = refused(settings);
        assert!(text.contains(said), "{settings}: {text}");
    }
}

#[test]
fn a_text_that_is_none_is_refused_by_its_line_and_not_shown() {
    for (text, said) in [
        ("[caches.default]\nurl = \"redis://:hunter2@a", "line 2: "),
        (
            "[caches.default]\nttl = 1.5",
            "line 2: invalid type: floating point `1.5`, expected text, a whole number",
        ),
        (
            "[caches.default]\nmax_loads = -1",
            "line 2: a number below zero",
        ),
        (
            "[caches.default]\nurl = [1]",
            "a list of something else than texts",
        ),
        ("[database]", "missing field `caches`"),
        (
            "[caches]\ndefault = \"redis://:hunter2@a\"",
            "line 2: a text where a table of settings is expected, as in `[caches.default]`",
        ),
        (
            "caches = \"redis://:hunter2@a\"",
            "line 1: a text where a table of settings is expected",
        ),
        (
            "[caches]\ndefault = 7",
            "line 2: invalid type: integer `7`, expected tables of caches",
        ),
    ] {
        let error = CachesConfig::from_toml(text).unwrap_err().to_string();
        assert!(
            error.starts_with("the configuration of caches: line "),
            "{error}"
        );
        assert!(
            error.contains(said) && !error.contains("hunter2"),
            "{error}"
        );
    }
    let none = config("[caches]").builders_in(|_| None).unwrap_err();
    assert_eq!(
        none.to_string(),
        "the configuration of caches: none is named; one must be named `default`"
    );
    let other = config("[caches.a]").builders_in(|_| None).unwrap_err();
    assert!(
        other
            .to_string()
            .contains("named are `a`; one must be named `default`"),
        "{other}"
    );
}

#[test]
fn the_environment_goes_before_and_fills_in() {
    let variables = [
        ("CACHES__SESSIONS__TTL", "24h"),
        ("CACHES__DEFAULT__TTL", "10m"),
        ("HOME", "/"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config =
        config("[caches.default]\nttl = \"5m\"\nprefix = \"${A:-a}-${B:-b}-${C:-c}-$$1$\"");
    let config = config.with_variables(variables.into_iter()).unwrap();
    let environment = |name: &str| match name {
        "B" => Some("two".to_owned()),
        "C" => Some(String::new()),
        _ => None,
    };
    let builders = config.builders_in(environment).unwrap();
    let shown: Vec<_> = builders
        .iter()
        .map(|(_, builder)| format!("{builder:?}"))
        .collect();
    assert!(
        shown[0].contains("ttl: 600s") && shown[0].contains("prefix: \"a-two-c-$1$\""),
        "{}",
        shown[0]
    );
    assert!(
        shown[1].contains("ttl: 86400s") && shown[1].contains("prefix: \"sessions\""),
        "{}",
        shown[1]
    );

    let wrong = [("CACHES__TTL".to_owned(), "1s".to_owned())];
    let error = CachesConfig::default()
        .with_variables(wrong.into_iter())
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`CACHES__TTL` is not `CACHES__<NAME>__<SETTING>`"),
        "{error}"
    );
}

#[cfg(feature = "redis")]
#[test]
fn a_url_that_is_none_is_told_with_what_is_allowed() {
    for url in [
        "http://a",
        "redis://a:port",
        "redis://a/db",
        "redis://:hun#ter2@a",
        "a",
    ] {
        let error = refused(&format!("url = \"{url}\""));
        let said = "`url` of the cache `default`: ";
        assert!(error.starts_with(said), "{error}");
        assert!(
            error.contains("allowed is a URL as in `redis://[user:password@]host"),
            "{error}"
        );
        assert!(!error.contains("ter2"), "{error}");
    }
}

#[test]
fn caches_do_not_share_their_keys() {
    let with = |prefix: &str, url: &str| {
        config(&format!(
            "[caches.default]\nurl = \"redis://a/0\"\nprefix = \"x\"\n\
             [caches.other]\nurl = \"{url}\"\nprefix = \"{prefix}\"\n"
        ))
    };
    let error = with("x", "redis://a/0")
        .builders_in(|_| None)
        .unwrap_err()
        .to_string();
    let said = "`prefix` of the cache `other`: the same as that of `default`, in the same place; \
                caches that share a place have prefixes of their own";
    assert_eq!(error, said);
    assert!(with("x", "redis://a/1").builders_in(|_| None).is_ok());
    assert!(with("y", "redis://a/0").builders_in(|_| None).is_ok());
    // Another text of the same place, and prefixes that are not said.
    for same in ["redis://a", "redis://a/"] {
        assert!(with("x", same).builders_in(|_| None).is_err(), "{same}");
    }
    let unsaid = "[caches.default]\nurl = \"redis://a\"\n[caches.soc]\nurl = \"redis://a/0\"\n";
    assert!(config(unsaid).builders_in(|_| None).is_err());
}

#[tokio::test]
async fn named_caches_are_apart_and_can_be_installed() {
    let config: CachesConfig =
        serde_json::from_str(r#"{"default": {"ttl": "1m"}, "sessions": {"memory": 1000000}}"#)
            .unwrap();
    let mut seen = Vec::new();
    let caches = Caches::from_config_with(&config, |name, builder| {
        seen.push(name.to_owned());
        builder
    });
    let caches = caches.await.unwrap();
    assert_eq!(seen, ["default", "sessions"]);
    let policy = crate::Policy::new();
    caches.main().set("a", &1, &policy).await.unwrap();
    assert_eq!(
        caches.named("sessions").unwrap().get::<i32>("a").await,
        None
    );
    let life = caches.main().ttl("a").await.unwrap();
    assert!(life.as_secs() <= 60, "{life:?}");

    let error = caches.named("session").unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no cache `session`; configured are `default`, `sessions`"
    );

    assert!(Caches::installed().is_none());
    caches.install();
    let installed = Caches::installed().unwrap();
    assert_eq!(installed.main().get::<i32>("a").await, Some(1));
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named_without_its_password() {
    let config = config("[caches.default]\nurl = \"redis://:hunter2@127.0.0.1:1/\"");
    let error = Caches::from_config(&config).await.unwrap_err().to_string();
    assert!(error.starts_with("the cache `default`: "), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}
