//! The folder of a store: that of another process, one that is not ours, its rights, and one that is temporary.

use super::{FOLDER, NOW, QUEUE, open, options, start};
use crate::child::{Running, say};
use crate::state_suite::{PATIENCE, append, lane, until};
use std::os::unix::fs::PermissionsExt;
use vumi_core::broker::Durability;
use vumi_core::codes;
use vumi_core::error::ErrorClass;
use vumi_core::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use vumi_core::state::{Journal, StateStore};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_of_another_process_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let mut child = start(folder.path(), false, 1, 1);
    child.until("appended", 1);
    let error = EmbeddedStore::open(options(folder.path(), false))
        .err()
        .expect("refused");
    assert_eq!(
        (error.code, error.class),
        (codes::STATE_IN_USE, ErrorClass::Connect)
    );
    assert!(error.text.contains("in use by another process"), "{error}");
    let _ = child.kill();
    open(folder.path(), false).close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_that_are_not_ours_are_refused() {
    let file = tempfile::NamedTempFile::new().expect("file");
    let error = EmbeddedStore::open(options(file.path(), false))
        .err()
        .expect("refused");
    assert_eq!(error.code, codes::STATE_UNUSABLE);

    let folder = tempfile::tempdir().expect("folder");
    let database = fjall::Database::builder(folder.path())
        .open()
        .expect("database");
    for name in ["queues", "messages"] {
        database.keyspace(name, Default::default).expect("keyspace");
    }
    drop(database);
    let error = EmbeddedStore::open(options(folder.path(), false))
        .err()
        .expect("refused");
    assert_eq!(error.code, codes::STATE_UNUSABLE);
    assert!(error.text.contains("something else"), "{error}");

    let folder = tempfile::tempdir().expect("folder");
    open(folder.path(), false).close(PATIENCE).await;
    let database = fjall::Database::builder(folder.path())
        .open()
        .expect("database");
    let index = database
        .keyspace("index", Default::default)
        .expect("keyspace");
    index.insert([b'f'], [99]).expect("another version");
    drop((index, database));
    let error = EmbeddedStore::open(options(folder.path(), false))
        .err()
        .expect("refused");
    assert_eq!(error.code, codes::STATE_UNUSABLE);
    assert!(error.text.contains("another version"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_is_private_and_named() {
    let folder = tempfile::tempdir().expect("folder");
    let state = folder.path().join("deep").join("state");
    let store = open(&state, false);
    assert_eq!(store.describe(), format!("embedded {}", state.display()));
    assert_eq!(store.durability(), Durability::Process);
    let mode = std::fs::metadata(&state)
        .expect("folder")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    store.close(PATIENCE).await;
}

/// Not a test: a child has a folder for temporary files of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the tests of this file as a child process"]
async fn temporary_child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let inside = || {
        let entries = std::fs::read_dir(&folder).expect("folder");
        entries
            .map(|entry| entry.expect("entry").path())
            .collect::<Vec<_>>()
    };
    let store = EmbeddedStore::open(EmbeddedStoreOptions::default()).expect("open");
    assert_eq!(store.durability(), Durability::Memory);
    assert_eq!(store.describe(), "embedded");
    let one = append(&lane("", 1), NOW, "a");
    store.append(QUEUE, vec![one]).await.expect("append");
    let [own] = &inside()[..] else {
        panic!("one folder: {:?}", inside());
    };
    let mode = std::fs::metadata(own).expect("folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(store);
    until("it is gone", || async { inside().is_empty().then_some(()) }).await;
    say("fine", "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporary_folder_goes_with_the_store() {
    let folder = tempfile::tempdir().expect("folder");
    let place = folder.path().display().to_string();
    let given = [(FOLDER, place.clone()), ("TMPDIR", place)];
    Running::start("state_faults::folders::temporary_child", given).until("fine", 0);
}
