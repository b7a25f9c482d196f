// The admin API. The token lives in this tab's session storage: no cookie, so no other site can use it.

const KEY = "edgecache-token";

export const token = {
  get: () => sessionStorage.getItem(KEY) || "",
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export async function call(method, path, document) {
  const headers = { Authorization: `Bearer ${token.get()}`, Accept: "application/json" };
  const options = { method, headers, cache: "no-store", credentials: "omit" };
  if (document !== undefined) {
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(document);
  }
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok && answer.error) throw new Refused(response.status, answer.detail || answer.error);
  return answer;
}
