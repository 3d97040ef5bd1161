/** Images and sounds as a chat keeps and sends them.

    A medium: {kind: "image" | "audio", type, name, data}, `data` in base64. A message of a person may have a list of
    them in `media`. Images that are large, or of a kind that servers don't read, are drawn anew as JPEG; sounds become
    WAV at 16 kHz with one channel, whatever this browser can play. */

import { size } from "./roompage.js";
import { t } from "./words.js";

export const MOST_BYTES = 5 * 2 ** 20; // of all media that one call sends; the server takes bodies of 8 MiB
export const MOST = 16;
const SENT_AS_IT_IS = new Set(["image/png", "image/jpeg", "image/webp", "image/gif"]);
const SMALL_BYTES = 2 ** 20;
const SIDE = 1600; // pixels
const LARGEST_BYTES = 64 * 2 ** 20; // of a file that is decoded here
const RATE = 16_000;
const QUIET = 0.02; // of the loudest sample
const MARGIN_S = 0.1;

export const bytesOf = (media) => media.reduce((sum, { data }) => sum + Math.floor((data.length * 3) / 4), 0);

export const urlOf = ({ type, data }) => `data:${type};base64,${data}`;

/** The parts of a message's content, as OpenAI's API has them: what is shown first, then what is said of it. */
export function partsOf(media, text) {
  const parts = media.map((medium) =>
    medium.kind === "image"
      ? { type: "image_url", image_url: { url: urlOf(medium) } }
      : { type: "input_audio", input_audio: { data: medium.data, format: "wav" } },
  );
  return text ? [...parts, { type: "text", text }] : parts;
}

/** A file that was brought; throws an Error that says what is wrong with it. */
export async function mediumOf(file) {
  const { name } = file;
  if (file.size > LARGEST_BYTES) {
    throw new Error(t("drop.large", { name, size: size(file.size), most: size(LARGEST_BYTES) }));
  }
  if (file.type.startsWith("image/")) return imageOf(file, name);
  if (file.type.startsWith("audio/") || file.type.startsWith("video/")) return soundOf(file, name);
  throw new Error(t("media.wrong", { name }));
}

async function imageOf(file, name) {
  const picture = await createImageBitmap(file).catch(() => {
    throw new Error(t("media.unreadable", { name }));
  });
  const share = Math.min(1, SIDE / Math.max(picture.width, picture.height));
  if (SENT_AS_IT_IS.has(file.type) && file.size <= SMALL_BYTES && share === 1) {
    return { kind: "image", type: file.type, name, data: await base64(file) };
  }
  const canvas = new OffscreenCanvas(...[picture.width, picture.height].map((n) => Math.max(1, Math.round(n * share))));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // JPEG has no transparency: the server, too, shows it on white
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.close();
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
  return { kind: "image", type: blob.type, name, data: await base64(blob) };
}

/** A sound; `cuts` leaves the silence at both of its ends out, as recordings have it. */
export async function soundOf(blob, name, { cuts = false } = {}) {
  const context = new OfflineAudioContext(1, 1, RATE); // decoding brings everything to its rate
  const decoded = await context.decodeAudioData(await blob.arrayBuffer()).catch(() => {
    throw new Error(t("media.unreadable", { name }));
  });
  const samples = cuts ? heard(mono(decoded)) : mono(decoded);
  return { kind: "audio", type: "audio/wav", name, data: await base64(new Blob([wav(samples)])) };
}

function mono(decoded) {
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, i) => decoded.getChannelData(i));
  return channels[0].map((_, at) => channels.reduce((sum, one) => sum + one[at], 0) / channels.length);
}

/** From the first sample that isn't silence to the last, with a little before and after. */
function heard(samples) {
  const loudest = samples.reduce((most, one) => Math.max(most, Math.abs(one)), 0);
  const isLoud = (one) => Math.abs(one) > loudest * QUIET;
  const first = samples.findIndex(isLoud);
  if (first < 0) return samples;
  const margin = MARGIN_S * RATE;
  return samples.slice(Math.max(0, first - margin), samples.findLastIndex(isLoud) + margin);
}

/** RIFF WAVE with 16 bits, one channel. */
export function wav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const word = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((one, i) => view.setInt16(44 + 2 * i, Math.round(32_767 * Math.max(-1, Math.min(1, one))), true));
  return view.buffer;
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
