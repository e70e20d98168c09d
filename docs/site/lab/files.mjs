/** Loads the files of the lab, for the page and for its worker. */

/** The bytes of a file; told(bytes so far) is called along the way. What is packed by gzip is unpacked here, as not every
 * server says of a .gz that it is packed. */
export async function load(name, told = () => {}) {
  const answer = await fetch(name).catch(() => ({ statusText: "no answer" }));
  if (!answer.ok) {
    const why = [answer.status, answer.statusText].join(" ").trim();
    throw new Error(`The file ${name} did not load (${why}): check the connection, then try again.`);
  }
  let size = 0;
  const transform = (part, stream) => {
    size += part.length;
    told(size);
    stream.enqueue(part);
  };
  const blob = await new Response(answer.body.pipeThrough(new TransformStream({ transform }))).blob();
  const [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  const packed = first === 0x1f && second === 0x8b;
  const stream = packed ? blob.stream().pipeThrough(new DecompressionStream("gzip")) : blob;
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** What tools/web_lab.py wrote of networks and files. */
export const loadAbout = async () => JSON.parse(new TextDecoder().decode(await load("lab.json")));
