// What the definition of a node cannot say on every host: seeds stay until someone changes them, the first step up from
// an automatic exposure goes to a dim picture, not to a black one, and the chart of a node is seen after live previews.
import { app } from "../../scripts/app.js";

const FIRST = 0.2; // a night that stays night
const TOO_DARK = 0.015;
const MARK = "jores_automatic_at_0"; // an option of the widget, which the front end copies to the widgets of a subgraph
const values = new WeakMap(); // of each node: marked widgets by name, as they were before the present click, drag or key
const guards = new WeakSet();
let typing = false; // a number that is written is meant as it stands

function started(node, widget, value) {
  const stepsUp = !typing && values.get(node)?.[widget.name] === 0 && value > 0 && value < TOO_DARK;
  return stepsUp ? FIRST : value;
}

function know(node, widget) {
  values.set(node, { ...values.get(node), [widget.name]: widget.value });
}

function guard(widget) {
  const before = widget.callback;
  widget.callback = function (value, canvas, owner, ...rest) {
    const node = owner ?? this.node;
    const meant = node ? started(node, this, value) : value;
    if (meant !== value) this.value = meant;
    before?.call(this, meant, canvas, owner, ...rest);
    if (node) know(node, this);
  };
  guards.add(widget.callback);
}

// Nobody tells what a number was before, so it is looked at before something can change it. Widgets of subgraphs come
// and go without a word and are found here, too; in Nodes 2.0 they have no callback, and are put right after a click.
function look(event) {
  typing = event.key !== "ArrowUp" && !!document.activeElement?.closest(".graphdialog, [data-node-id] input");
  for (const node of app.canvas?.graph?.nodes ?? []) {
    for (const widget of node.widgets ?? []) {
      if (!widget.options?.[MARK]) continue;
      if (!guards.has(widget.callback)) guard(widget);
      if (event.type === "click") {
        const meant = started(node, widget, widget.value);
        if (meant !== widget.value) widget.value = meant;
      }
      know(node, widget);
    }
  }
}

// The front end shows the last live preview in place of what the node shows itself, until its next run. No call of its
// own takes the preview away on all hosts; where these places change, the preview stays.
function uncover(node) {
  const place = node.graph === app.graph ? `${node.id}` : `${node.graph?.id}:${node.id}`;
  const stores = document.getElementById("vue-app")?.__vue_app__?.config?.globalProperties?.$pinia?._s;
  const store = stores?.get?.("nodeOutput");
  delete store?.nodePreviewImages?.[place]; // of Nodes 2.0
  store?.revokePreviewsByLocatorId?.(place); // frees its memory, too
  delete app.nodePreviewImages?.[place];
}

app.registerExtension({
  name: "JoReS.LowLight",
  setup() {
    for (const kind of ["pointerdown", "pointerup", "keydown"]) window.addEventListener(kind, look, true);
    window.addEventListener("click", look);
  },
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("JoReS")) return;
    for (const widget of node.widgets ?? []) {
      if (widget.name === "control_after_generate") widget.value = "fixed"; // a saved graph's own choice comes later
      if (widget.name === "exposure") widget.options[MARK] = true;
    }
    const before = node.onExecuted;
    node.onExecuted = function (output, ...rest) {
      before?.call(this, output, ...rest);
      if (output?.images?.length) uncover(this);
    };
  },
});
