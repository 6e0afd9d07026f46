//! The program, on a file.

use std::path::PathBuf;
use std::process::{Command, Output};

use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};

/// A database that is gone with this value.
struct File(PathBuf);

impl File {
    fn new() -> Self {
        let name = format!("sea-orm-cache-cli-{}.sqlite", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn url(&self) -> String {
        format!("sqlite://{}?mode=rwc", self.0.display())
    }

    fn program(&self, words: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sea-orm-cache-migration"));
        let program = program.args(words).env("DATABASE_URL", self.url());
        program.output().expect("the program starts")
    }

    /// What it prints.
    fn done(&self, words: &[&str]) -> String {
        let output = self.program(words);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{words:?}: {out}{err}");
        out
    }

    /// What it says and prints when it fails.
    fn failed(&self, words: &[&str]) -> String {
        let output = self.program(words);
        assert!(!output.status.success(), "{words:?}");
        text(&output.stderr) + &text(&output.stdout)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn rows(db: &DatabaseConnection) -> Vec<(String, Option<String>)> {
    let sql = "SELECT table_name, new_json FROM sea_orm_cache_outbox ORDER BY id";
    let asked = Statement::from_string(db.get_database_backend(), sql);
    let rows = db.query_all_raw(asked).await.unwrap();
    let row = |row: &sea_orm::QueryResult| {
        let table = row.try_get("", "table_name").unwrap();
        (table, row.try_get("", "new_json").unwrap())
    };
    rows.iter().map(row).collect()
}

#[tokio::test]
async fn tables_are_watched_and_left_alone_again() {
    let file = File::new();
    let db = Database::connect(file.url()).await.unwrap();
    db.execute_unprepared(
        "CREATE TABLE city (id integer PRIMARY KEY, slug varchar NOT NULL, name varchar); \
         CREATE TABLE country (id integer PRIMARY KEY)",
    )
    .await
    .unwrap();

    // Nothing is done if one of the tables is not there.
    let error = file.failed(&["up", "city", "ctiy"]);
    assert!(error.contains("there is no table ctiy"), "{error}");
    let error = file.failed(&["up", "city:slog"]);
    assert!(
        error.contains("city has no column slog; it has id, slug, name"),
        "{error}"
    );
    let error = file.failed(&["status"]);
    assert!(
        error.contains("no such table: sea_orm_cache_outbox"),
        "{error}"
    );
    let error = file.failed(&["up"]);
    assert!(error.contains("<TABLE>"), "{error}");

    let said = file.done(&["up", "city:slug", "country"]);
    assert_eq!(
        said,
        "city:slug: triggers installed\ncountry: triggers installed\n"
    );
    let said = file.done(&["status", "city:slug", "country"]);
    assert!(said.contains("city:slug: its triggers are there"), "{said}");
    assert!(said.contains("changes that wait: 2"), "{said}");
    let said = file.failed(&["status", "city"]);
    assert!(said.contains("others than `up` would install"), "{said}");

    let write = "INSERT INTO city (id, slug, name) VALUES (1, 'paris', 'Paris')";
    db.execute_unprepared(write).await.unwrap();
    let told = rows(&db).await.pop().unwrap();
    let row = Some(r#"{"id":1,"slug":"paris"}"#.to_owned());
    assert_eq!(told, ("city".to_owned(), row));

    file.done(&["down", "city"]);
    let error = file.failed(&["drop-outbox"]);
    assert!(error.contains("3 triggers still write"), "{error}");
    file.done(&["down", "country"]);
    file.done(&["drop-outbox"]);
    db.execute_unprepared("DELETE FROM city").await.unwrap();
}
