/** The rooms of the page, in the order of the rail.

    How a room is added (rooms/write.js is the pattern):
    1. js/rooms/NAME.js exports {name, icon, draw(rest)}: `name` is the word in the address (#/NAME), `icon` one of
       icons.js, and `draw` gives the elements of the room each time it is entered or the language changes; `rest` holds
       what follows in the address (#/NAME/a/b -> ["a", "b"]). What must survive leaving the room lives in the module.
    2. Its words are in js/rooms/NAME.words.js, {en: {...}, zh: {...}} with "room.NAME" for the rail among them, and the
       room calls addWords(WORDS) at its top. Its css is css/NAME.css, with a link in index.html.
    3. One line in ROOMS below, and a modulepreload line in index.html for each new file.
    4. Parts to build with: roomPage (roompage.js), dropZone (dropzone.js), jobList and jobCard (jobcard.js), call, open,
       remove and upload (api.js), events (stream.js). Text becomes nodes with h(), never markup. */

import { analyse } from "./rooms/analyse.js";
import { ask } from "./rooms/ask.js";
import { chat } from "./rooms/chat.js";
import { support } from "./rooms/support.js";
import { translate } from "./rooms/translate.js";
import { write } from "./rooms/write.js";

// prettier-ignore
export const ROOMS = [
  chat,
  write,
  ask,
  translate,
  analyse,
  support,
];

/** The room of the address, and what follows its name. */
export function here() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  return { room: ROOMS.find((room) => room.name === name) ?? ROOMS[0], rest };
}
