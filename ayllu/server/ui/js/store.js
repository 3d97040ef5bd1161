/** Conversations in IndexedDB, one record each; where a browser keeps nothing, in memory until the tab is closed. */

const NAME = "ayllu";
const TABLE = "conversations";

let opening = null;

function database() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("another tab holds the database open"));
  });
  return opening;
}

async function within(mode, work) {
  const table = (await database()).transaction(TABLE, mode).objectStore(TABLE);
  const request = work(table);
  return new Promise((resolve, reject) => {
    request.transaction.oncomplete = () => resolve(request.result);
    request.transaction.onabort = () => reject(request.transaction.error);
  });
}

export const all = () => within("readonly", (table) => table.getAll());
export const put = (conversation) => within("readwrite", (table) => table.put(conversation));
export const remove = (id) => within("readwrite", (table) => table.delete(id));
