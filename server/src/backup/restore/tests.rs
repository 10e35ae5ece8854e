//! Every place at which moving the files can be cut short: going on from there ends where an undisturbed run does.

use std::collections::BTreeMap;

use super::*;

const NAME: &str = "before-restore-20260102T030405Z";

/// The files below a folder, with their content.
fn tree(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            found
                .extend(tree(&path).into_iter().map(|(below, content)| (format!("{name}/{below}"), content)));
        } else {
            found.insert(name, fs::read_to_string(&path).expect("a text"));
        }
    }
    found
}

fn put(folder: &Path, names: &[&str], content: &str) {
    fs::create_dir_all(folder).expect("a folder can be made");
    for name in names {
        fs::write(folder.join(name), content).expect("a file can be written");
    }
}

const OLD: [&str; 7] =
    ["pulse.db", "pulse.db-wal", "pulse.db-shm", "ca.pem", "ca.key", "secret.key", "secret.key.next"];
const NEW: [&str; 4] = ["pulse.db", "ca.pem", "ca.key", "server.key"];

/// The folder as it is when nothing has been moved yet.
fn begin(data_dir: &Path) {
    put(data_dir, &OLD, "old");
    put(data_dir, &["pulse.lock", "mine.txt"], "stays");
    put(&data_dir.join(READY), &NEW, "new");
    fs::write(data_dir.join(READY).join(ASIDE), NAME).expect("a file can be written");
}

/// The renames of an undisturbed run, in their order.
fn steps() -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    for name in OF_THE_DATABASE.into_iter().chain(KEY_FILES).filter(|name| OLD.contains(name)) {
        steps.push((name.to_owned(), format!("{NAME}/{name}")));
    }
    steps.push((READY.to_owned(), MOVING.to_owned()));
    for name in std::iter::once(DATABASE).chain(KEY_FILES).filter(|name| NEW.contains(name)) {
        steps.push((format!("{MOVING}/{name}"), name.to_owned()));
    }
    steps
}

#[test]
fn moving_goes_on_from_wherever_it_was_cut_short() {
    let undisturbed = tempfile::tempdir().unwrap();
    begin(undisturbed.path());
    let finished = go_on(undisturbed.path()).unwrap().unwrap();
    assert_eq!(finished.aside, Some(undisturbed.path().join(NAME)));
    let end = tree(undisturbed.path());
    let expected = OLD.iter().map(|name| (format!("{NAME}/{name}"), "old".to_owned()));
    let expected = expected.chain(NEW.iter().map(|name| ((*name).to_owned(), "new".to_owned())));
    let stays = ["pulse.lock", "mine.txt"].map(|name| (name.to_owned(), "stays".to_owned()));
    assert_eq!(end, expected.chain(stays).collect());

    for done in 0..=steps().len() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path();
        begin(data_dir);
        for (from, to) in &steps()[..done] {
            fs::create_dir_all(data_dir.join(NAME)).unwrap();
            fs::rename(data_dir.join(from), data_dir.join(to)).unwrap();
        }
        finish(data_dir).unwrap();
        assert_eq!(tree(data_dir), end, "cut short after {done} steps");
        assert!(!data_dir.join(MOVING).exists() && !data_dir.join(READY).exists());
        assert_eq!(go_on(data_dir).unwrap(), None, "nothing is left to do");
    }
}

#[test]
fn the_last_step_can_be_cut_short_too() {
    let folder = tempfile::tempdir().unwrap();
    begin(folder.path());
    go_on(folder.path()).unwrap();
    let end = tree(folder.path());
    // The name is gone, its folder is not.
    fs::create_dir(folder.path().join(MOVING)).unwrap();
    finish(folder.path()).unwrap();
    assert_eq!(tree(folder.path()), end);
    assert!(!folder.path().join(MOVING).exists());
}

#[test]
fn a_damaged_name_of_the_folder_aside_moves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    begin(folder.path());
    for name in ["../elsewhere", "before-restore-1/../../x", ""] {
        fs::write(folder.path().join(READY).join(ASIDE), name).unwrap();
        let error = finish(folder.path()).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{name:?}: {error}");
        assert_eq!(fs::read_to_string(folder.path().join("pulse.db")).unwrap(), "old");
    }
}

#[test]
fn a_server_does_not_meddle_with_a_restore_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    begin(folder.path());
    let lock = DataLock::take(folder.path()).unwrap();
    let error = finish(folder.path()).unwrap_err();
    assert!(error.to_string().contains("is locked"), "{error}");
    // Another start helps, so whoever watches over the server tries again.
    assert!(!crate::RunError::from(error).is_for_operator());
    drop(lock);
    finish(folder.path()).unwrap();
}

#[test]
fn a_link_in_the_data_folder_leads_root_nowhere() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (data_dir, victim) = (folder.path(), elsewhere.path().join("shadow"));
    std::os::unix::fs::symlink(&victim, data_dir.join("pulse.lock")).unwrap();
    DataLock::take(data_dir).unwrap_err();
    assert!(!victim.exists(), "nothing is made there");
    fs::write(&victim, "root's").unwrap();
    fs::set_permissions(&victim, Permissions::from_mode(0o640)).unwrap();
    DataLock::take(data_dir).unwrap_err();
    give_to_owner(&data_dir.join(LOCK), data_dir, 0o600).unwrap_err();
    assert_eq!(fs::metadata(&victim).unwrap().permissions().mode() & 0o777, 0o640);
    fs::remove_file(data_dir.join(LOCK)).unwrap();

    begin(data_dir);
    std::os::unix::fs::symlink(elsewhere.path(), data_dir.join(NAME)).unwrap();
    finish(data_dir).unwrap_err();
    assert_eq!(tree(elsewhere.path()).len(), 1, "nothing is moved there");
}
